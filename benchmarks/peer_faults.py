"""Plant errors in a port of DDQ-DETR, and ask this toolkit and pytest-torch where they are.

The pair is mmdet's DDQ-DETR and this toolkit's, a tiny variant of both on three images. The errors are taken evenly
from the catalogue of ``tests/faults``, of six groups; harmless rewrites come from there as well.

Each tool is asked under a tolerance of exactly 0, which both can be held to here since the clean pair has equal bits,
and pytest-torch under its own as well. Rewrites that round otherwise are only asked under a tolerance that allows
rounding: derived here, its own there.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import torch

from parity.comparing.compare import DERIVED, EXACT
from tests.faults import model_attention, model_backbone, model_backward, model_decoder, model_head, model_hooks
from tests.faults import model_losses, model_queries, training, training_options, weights
from tests.faults.bench import ALARM, MISSED, NAMED, Bench
from tests.faults.catalogue import REWRITES
from tests.faults.fault import DETECTOR, MODEL, Fault, Rewrite
from tests.faults.ground import Ground
from tests.warm.execute import use_forks

from .peer_pytest_torch import PytestTorch, Told

OURS, PEER, PEER_EXACT = "ddq-parity", "pytest-torch", "pytest-torch, rtol = atol = 0"
TOOLS = (OURS, PEER_EXACT, PEER)
NOT_COVERED = "not covered"
#: Errors that leave every output and loss as it is and show in gradients, or in the model's state, afterwards.
_AFTERWARDS = ("batches_counted", "running_mean_moves", "frozen_stage_trains", "frozen_by_mistake")
#: What pytest-torch has no comparison of two models for.
_UNCLAIMED = ("gradients and state", "training steps")
_DEFAULT = {
    "forward": 24, "decisions": 12, "losses": 10, "weights": 12, "gradients and state": 12, "training steps": 12,
}  # fmt: skip


def groups() -> dict[str, list[Fault]]:
    """Return the errors of each group, as the catalogue has them."""
    parts = (model_backbone, model_attention, model_decoder, model_queries, model_head)
    plain = [fault for part in parts for fault in part.FAULTS if (fault.place, fault.setting) == (MODEL, "plain")]
    decisions = [fault for fault in plain if fault.says.startswith("tap ")]
    afterwards = [fault for fault in plain if fault.name in _AFTERWARDS]
    forward = [fault for fault in plain if fault not in decisions and fault not in afterwards]
    losses = [fault for fault in model_losses.FAULTS if (fault.place, fault.setting) == (MODEL, "plain")]
    backward = [*model_backward.FAULTS, *model_hooks.FAULTS, *afterwards]
    steps = [*training.FAULTS, *training_options.FAULTS]
    found = (forward, decisions, losses, list(weights.FAULTS), backward, steps)
    return dict(zip(_DEFAULT, found, strict=True))


def evenly(items: Sequence[Any], number: int) -> list[Any]:
    """Return so many items, evenly spread, the first among them."""
    number = min(number, len(items))
    return [items[place * len(items) // number] for place in range(number)]


@dataclass(frozen=True)
class Saw:
    """What one tool said of one error or rewrite.

    Attributes:
        judged: ``named``, ``misnamed``, ``missed``, ``silent``, ``false alarm`` or ``not covered``.
        said: where it saw what, in short.
        seconds: that it took; of this toolkit without the legacy side, which is run once.
    """

    judged: str
    said: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What all tools said.

    Attributes:
        faults: group -> name -> tool -> what it said.
        rewrites: name -> tool -> what it said.
        legacy_seconds: that this toolkit's legacy side took.
        memory: tool -> most bytes of a process of it.
    """

    faults: dict[str, dict[str, dict[str, Saw]]]
    rewrites: dict[str, dict[str, Saw]]
    legacy_seconds: float
    memory: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def measure(each: int | None, rewrites: int, progress: Callable[[str], None]) -> Seen:
    """Plant errors and rewrites one after the other.

    Args:
        each: number of errors of a group; None for the usual ones.
        rewrites: number of rewrites.
        progress: is told each step.
    """
    torch.set_num_threads(1)
    chosen = {group: evenly(faults, each or _DEFAULT[group]) for group, faults in groups().items()}
    harmless = evenly([one for one in REWRITES.values() if (one.place, one.setting) == (MODEL, "plain")], rewrites)
    use_forks()
    with tempfile.TemporaryDirectory(prefix="ddq-peers-") as made:
        bench = Bench(Path(made))
        begin = time.monotonic()
        ground = bench._ground("plain", EXACT)
        seconds = time.monotonic() - begin
        asked = _Asked(bench, PytestTorch(ground.sides))
        told = {group: asked.faults(group, faults, progress) for group, faults in chosen.items()}
        calm = asked.rewrites(harmless, progress)
        memory = {OURS: _peak(ground), PEER_EXACT: asked.peer.clean(0.0).memory, PEER: asked.peer.clean(None).memory}
    return Seen(told, calm, seconds, memory)


@dataclass(frozen=True)
class _Asked:
    bench: Bench
    peer: PytestTorch

    def faults(self, group: str, faults: Sequence[Fault], progress: Callable[[str], None]) -> dict[str, dict[str, Saw]]:
        found = {}
        for number, fault in enumerate(faults, 1):
            found[fault.name] = {OURS: self._ours(fault, EXACT)}
            for tool, tolerance in ((PEER_EXACT, 0.0), (PEER, None)):
                covered = group not in _UNCLAIMED
                found[fault.name][tool] = self._peers(fault, tolerance) if covered else Saw(NOT_COVERED)
            progress(f"{group} {number} of {len(faults)}, {fault.name}: {_told(found[fault.name])}")
        return found

    def rewrites(self, rewrites: Sequence[Rewrite], progress: Callable[[str], None]) -> dict[str, dict[str, Saw]]:
        found = {}
        for number, one in enumerate(rewrites, 1):
            # "batch" is the same task, with mmdet's DDQ-DETR as the legacy side under derived tolerance as well
            ours = self._ours(one if one.keeps_bits else _of_batch(one), EXACT if one.keeps_bits else DERIVED)
            found[one.name] = {OURS: ours, PEER: self._peers(one, None)}
            found[one.name][PEER_EXACT] = self._peers(one, 0.0) if one.keeps_bits else Saw(NOT_COVERED)
            progress(f"rewrite {number} of {len(rewrites)}, {one.name}: {_told(found[one.name])}")
        return found

    def _ours(self, planted: Fault | Rewrite, tolerance: str) -> Saw:
        begin = time.monotonic()
        finding, _ = self.bench.see(planted, tolerance)
        return Saw(finding.judged(planted), f"{finding.where}: {finding.message}"[:300], time.monotonic() - begin)

    def _peers(self, planted: Fault | Rewrite, tolerance: float | None) -> Saw:
        told = self.peer.see(planted, tolerance)
        return Saw(judged(planted, told), said(told), told.seconds)


def _of_batch(rewrite: Rewrite) -> Rewrite:
    return Rewrite(**{**vars(rewrite), "setting": "batch"})


def judged(planted: Fault | Rewrite, told: Told) -> str:
    """Judge what pytest-torch said, and take what helps it: either of its places counts, an owner for its parameter.

    Where it is the detector's own code that is wrong, the detector counts, and so does an error that is said to have
    entered between layers, if nothing else is named. Of a loss, its name in the message about outputs counts as well.
    """
    if isinstance(planted, Rewrite):
        return ALARM if told.detected else "silent"
    if not told.detected:
        return MISSED
    where = "" if planted.where == DETECTOR else planted.where
    owner = where.rpartition(".")[0] if planted.place != MODEL or _is_tensor(where) else where
    leaf = where.rpartition(".")[2]
    if where in told.places or owner in told.places or (leaf.startswith("loss_") and leaf in told.outputs):
        return NAMED
    return "misnamed"


def _is_tensor(where: str) -> bool:
    return where.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var", "in_proj_weight")


def said(told: Told) -> str:
    """Return what pytest-torch said, in short."""
    places = ", ".join(name or "the detector" for name in told.places)
    return "; ".join(filter(None, (places, " ".join(told.outputs.split())[:200], told.crash[:200])))


def _told(saw: dict[str, Saw]) -> str:
    return ", ".join(f"{tool} {one.judged}" for tool, one in saw.items())


def _peak(ground: Ground) -> int:
    traces = (ground.legacy, ground.clean.trace)
    return max(trace.provenance["peak_memory"]["process"] for trace in traces)


def table(seen: Seen) -> str:
    """Return the figures as a table in Markdown."""
    return "\n".join(_rows(seen))


def _rows(seen: Seen) -> Iterator[str]:
    yield "| planted | " + " | ".join(TOOLS) + " |"
    yield "|---|" + "---|" * len(TOOLS)
    for group, faults in seen.faults.items():
        yield f"| {group} ({len(faults)}): detected, named | " + " | ".join(_share(faults, tool) for tool in TOOLS) + " |"
    every = {name: saw for faults in seen.faults.values() for name, saw in faults.items()}
    covered = {name: saw for name, saw in every.items() if saw[PEER].judged != NOT_COVERED}
    yield f"| what outputs show ({len(covered)}) | " + " | ".join(_share(covered, tool) for tool in TOOLS) + " |"
    yield f"| all ({len(every)}) | " + " | ".join(_share(every, tool, True) for tool in TOOLS) + " |"
    yield f"| harmless rewrites ({len(seen.rewrites)}): false alarms | " + " | ".join(
        _alarms(seen.rewrites, tool) for tool in TOOLS
    ) + " |"
    yield "| seconds of one comparison, median | " + " | ".join(_seconds(seen, every, tool) for tool in TOOLS) + " |"
    yield "| memory of its largest process, MB | " + " | ".join(f"{seen.memory[tool] / 1e6:.0f}" for tool in TOOLS) + " |"


def _share(faults: dict[str, dict[str, Saw]], tool: str, of_all: bool = False) -> str:
    told = [saw[tool].judged for saw in faults.values()]
    if not of_all and all(one == NOT_COVERED for one in told):
        return NOT_COVERED
    found, named = sum(one in (NAMED, "misnamed") for one in told), told.count(NAMED)
    return f"{found}, {named}"


def _alarms(rewrites: dict[str, dict[str, Saw]], tool: str) -> str:
    told = [saw[tool].judged for saw in rewrites.values() if saw[tool].judged != NOT_COVERED]
    return f"{told.count(ALARM)} of {len(told)}"


def _seconds(seen: Seen, every: dict[str, dict[str, Saw]], tool: str) -> str:
    of_forward = [saw[tool].seconds for saw in every.values() if saw[PEER].judged != NOT_COVERED]
    more = seen.legacy_seconds if tool == OURS else 0.0
    return f"{statistics.median(of_forward) + more:.1f}"
