"""Plant errors in a port of DDQ-DETR, and ask this toolkit and pytest-torch where they are.

The pair is mmdet's DDQ-DETR and this toolkit's, a tiny variant of both on three images. The errors are taken evenly
from the catalogue of ``tests/faults``, of six groups; harmless rewrites come from there as well.

Errors are looked for under a tolerance of exactly 0, which both tools can be held to, since the clean pair has equal
bits. Rewrites are shown to pytest-torch under its own tolerance, where it raises fewer alarms; to this toolkit under
exact tolerance if they keep all bits, else under derived tolerance.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import torch

from parity.comparing.compare import DERIVED, EXACT
from tests.faults import (
    model_attention,
    model_backbone,
    model_backward,
    model_decoder,
    model_head,
    model_hooks,
    model_losses,
    model_queries,
    training,
    training_options,
    weights,
)
from tests.faults.bench import ALARM, MISNAMED, MISSED, NAMED, SILENT, Bench
from tests.faults.catalogue import REWRITES
from tests.faults.fault import DETECTOR, MODEL, Fault, Rewrite
from tests.faults.ground import INFERENCE, Ground, task_of
from tests.faults.test_faults import IN_INFERENCE
from tests.warm import execute
from tests.warm.execute import use_forks

from .peer_pytest_torch import PytestTorch, Told

OURS, PEER = TOOLS = ("ddq-parity", "pytest-torch")
NOT_COVERED = "not covered"
HARMLESS = "harmless rewrites"
#: Errors that leave every output and loss as it is and show in gradients, or in the model's state, afterwards.
_AFTERWARDS = ("batches_counted", "running_mean_moves", "frozen_stage_trains", "frozen_by_mistake")
#: What pytest-torch has no comparison of two models for.
_UNCLAIMED = ("gradients and state", "training steps")
_DEFAULT = {
    "forward": 18, "decisions": 9, "losses": 9, "weights": 9, "gradients and state": 9, "training steps": 10,
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


def chosen_of(faults: Sequence[Fault], number: int) -> list[Fault]:
    """Return so many errors, evenly spread: first of those that inference alone shows, which takes half as long."""
    quick = evenly([replace(fault, setting=INFERENCE) for fault in faults if fault.name in IN_INFERENCE], number)
    return quick + evenly([fault for fault in faults if fault.name not in IN_INFERENCE], number - len(quick))


@dataclass(frozen=True)
class Saw:
    """What one tool said of one error or rewrite.

    Attributes:
        judged: ``named``, ``misnamed``, ``missed``, ``silent``, ``false alarm`` or ``not covered``.
        said: where it saw what, in short.
        seconds: of the processor; of this toolkit without the legacy side, which is run once.
    """

    judged: str
    said: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Planted:
    """What all tools said of one error or rewrite.

    Attributes:
        name: of it.
        group: of errors; :data:`HARMLESS` for a rewrite.
        saw: by tool.
    """

    name: str
    group: str
    saw: dict[str, Saw]


@dataclass
class Seen:
    """What all tools said.

    Attributes:
        planted: what was planted so far.
        legacy_seconds: of the processor, for this toolkit's legacy side.
        memory: tool -> most bytes of a process of it.
    """

    planted: list[Planted]
    legacy_seconds: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Seen:
        """Read what an earlier run wrote; nothing without one."""
        if not file.is_file():
            return cls([])
        plain = json.loads(file.read_text())
        planted = [
            Planted(one["name"], one["group"], {tool: Saw(**saw) for tool, saw in one["saw"].items()}) for one in plain["planted"]
        ]
        return cls(planted, plain["legacy_seconds"], plain["memory"])

    def save(self, file: Path) -> None:
        """Write it, as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")


def measure(each: int | None, rewrites: int, out: Path, progress: Callable[[str], None]) -> Seen:
    """Plant errors and rewrites, one after the other; what ``out`` holds of an earlier run is not planted again.

    Args:
        each: number of errors of a group; None for the usual ones.
        rewrites: number of rewrites.
        out: is written after each.
        progress: is told each step.
    """
    torch.set_num_threads(1)
    chosen = [(fault, group) for group, faults in groups().items() for fault in chosen_of(faults, each or _DEFAULT[group])]
    harmless = [one for one in REWRITES.values() if (one.place, one.setting) == (MODEL, "plain")]
    chosen += [(one, HARMLESS) for one in evenly(harmless, rewrites)]
    seen = Seen.load(out)
    done = {one.name for one in seen.planted}
    left = [(one, group) for one, group in _in_turn(chosen) if one.name not in done]
    if left:
        use_forks()
        with tempfile.TemporaryDirectory(prefix="ddq-peers-") as made:
            _plant(left, seen, Bench(Path(made)), out, progress)
    names = {one.name for one, _ in chosen}
    return Seen([one for one in seen.planted if one.name in names], seen.legacy_seconds, seen.memory)


def _in_turn(chosen: Sequence[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """Order what is chosen so that every group has its share of the beginning."""
    sizes = Counter(group for _, group in chosen)
    places: Counter[str] = Counter()
    ranked = []
    for one, group in chosen:
        ranked.append((places[group] / sizes[group], one, group))
        places[group] += 1
    return [(one, group) for _, one, group in sorted(ranked, key=lambda row: row[0])]


def _plant(
    left: Sequence[tuple[Any, str]], seen: Seen, bench: Bench, out: Path, progress: Callable[[str], None]
) -> None:
    task = task_of("plain")
    Ground.live(task, EXACT, bench.folder / "first")  # starts the process that the next one is forked from
    begin = _cpu_seconds()
    ground = bench._ground("plain", EXACT)
    seen.legacy_seconds = _cpu_seconds() - begin
    asked = _Asked(bench, {setting: PytestTorch(bench._ground(setting, EXACT).sides) for setting in ("plain", INFERENCE)})
    seen.memory = {OURS: _peak(ground), PEER: asked.peers["plain"].clean(0.0).memory}
    for number, (one, group) in enumerate(left, 1):
        saw = asked.rewrite(one) if group == HARMLESS else asked.fault(one, group not in _UNCLAIMED)
        seen.planted.append(Planted(one.name, group, saw))
        seen.save(out)
        told = ", ".join(f"{tool} {what.judged}" for tool, what in saw.items())
        progress(f"{number} of {len(left)}, {group}, {one.name}: {told}")


@dataclass(frozen=True)
class _Asked:
    bench: Bench
    peers: dict[str, PytestTorch]

    def fault(self, fault: Fault, covered: bool) -> dict[str, Saw]:
        return {OURS: self._ours(fault, EXACT), PEER: self._peers(fault, 0.0) if covered else Saw(NOT_COVERED)}

    def rewrite(self, one: Rewrite) -> dict[str, Saw]:
        # "batch" is the same task, with mmdet's DDQ-DETR as the legacy side under derived tolerance as well
        ours = self._ours(one, EXACT) if one.keeps_bits else self._ours(replace(one, setting="batch"), DERIVED)
        return {OURS: ours, PEER: self._peers(one, None)}

    def _ours(self, planted: Fault | Rewrite, tolerance: str) -> Saw:
        begin = _cpu_seconds()
        finding, _ = self.bench.see(planted, tolerance)
        return Saw(finding.judged(planted), f"{finding.where}: {finding.message}"[:300], _cpu_seconds() - begin)

    def _peers(self, planted: Fault | Rewrite, tolerance: float | None) -> Saw:
        told = self.peers[planted.setting].see(planted, tolerance)
        return Saw(judged(planted, told), said(told), told.seconds)


def _cpu_seconds() -> float:
    """Return the processor's time of this process, and of the sides that ran in forks of warm ones."""
    total = time.process_time()
    for warm in execute._warm.values():
        fields = Path(f"/proc/{warm.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own and those of children, user and system
    return total


def judged(planted: Fault | Rewrite, told: Told) -> str:
    """Judge what pytest-torch said, and take what helps it: either of its places counts, an owner for its parameter.

    Where it is the detector's own code that is wrong, the detector counts, and so does an error that is said to have
    entered between layers, if nothing else is named. Of a loss, its name in the message about outputs counts as well.
    """
    if isinstance(planted, Rewrite):
        return ALARM if told.detected else SILENT
    if not told.detected:
        return MISSED
    where = "" if planted.where == DETECTOR else planted.where
    owner = where.rpartition(".")[0] if planted.place != MODEL or _is_tensor(where) else where
    leaf = where.rpartition(".")[2]
    if where in told.places or owner in told.places or (leaf.startswith("loss_") and leaf in told.outputs):
        return NAMED
    return MISNAMED


def _is_tensor(where: str) -> bool:
    return where.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var", "in_proj_weight")


def said(told: Told) -> str:
    """Return what pytest-torch said, in short."""
    places = ", ".join(name or "the detector" for name in told.places)
    return "; ".join(filter(None, (places, " ".join(told.outputs.split())[:200], told.crash[:200])))


def _peak(ground: Ground) -> int:
    traces = (ground.legacy, ground.clean.trace)
    return max(trace.provenance["peak_memory"]["process"] for trace in traces)


def table(seen: Seen) -> str:
    """Return the figures as a table in Markdown."""
    return "\n".join(_rows(seen))


def _rows(seen: Seen) -> Iterator[str]:
    faults = [_claimed(one) for one in seen.planted if one.group != HARMLESS]
    harmless = [one for one in seen.planted if one.group == HARMLESS]
    yield _row("planted", TOOLS)
    yield "|---|" + "---|" * len(TOOLS)
    for group in _DEFAULT:
        of_group = [one for one in faults if one.group == group]
        yield _row(f"{group} ({len(of_group)}): detected, named", (_share(of_group, tool) for tool in TOOLS))
    covered = [one for one in faults if one.saw[PEER].judged != NOT_COVERED]
    yield _row(f"what outputs show ({len(covered)})", (_share(covered, tool) for tool in TOOLS))
    yield _row(f"all ({len(faults)})", (_share(faults, tool) for tool in TOOLS))
    yield _row(f"harmless rewrites ({len(harmless)}): false alarms", (_alarms(harmless, tool) for tool in TOOLS))
    yield _row("processor seconds of a comparison with losses, median", (_seconds(seen, covered, tool) for tool in TOOLS))
    yield _row("memory of its largest process, MB", (f"{seen.memory[tool] / 1e6:.0f}" for tool in TOOLS))


def _claimed(one: Planted) -> Planted:
    """Return what was said of an error; a decision that moves no output is nothing that pytest-torch claims to see."""
    if one.group != "decisions" or one.saw[PEER].judged != MISSED:
        return one
    return replace(one, saw={**one.saw, PEER: replace(one.saw[PEER], judged=NOT_COVERED)})


def _row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _share(planted: Sequence[Planted], tool: str) -> str:
    told = [one.saw[tool].judged for one in planted]
    if told and all(one == NOT_COVERED for one in told):
        return NOT_COVERED
    aside = f" ({told.count(NOT_COVERED)} not covered)" if NOT_COVERED in told else ""
    return f"{sum(one in (NAMED, MISNAMED) for one in told)}, {told.count(NAMED)}{aside}"


def _alarms(rewrites: Sequence[Planted], tool: str) -> str:
    told = [one.saw[tool].judged for one in rewrites]
    return f"{told.count(ALARM)} of {len(told)}"


def _seconds(seen: Seen, planted: Sequence[Planted], tool: str) -> str:
    seconds = [one.saw[tool].seconds for one in planted if one.name not in IN_INFERENCE]
    return f"{statistics.median(seconds) + (seen.legacy_seconds if tool == OURS else 0.0):.1f}" if seconds else ""
