"""Small traces written by hand, for tests of the engine that run no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converters.rules.mapping import Keep, Mapping
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.comparing.compare import Tolerance
from parity.traces.trace import Trace
from parity.verdict.verdict import Verdict, judge

SAME_NAMES = Mapping("toy", (Keep("**"),))
EXACT = Tolerance()
NAN, INF = float("nan"), float("inf")
PROVENANCE = dict(
    family="toy",
    variant="tiny",
    seed=0,
    threads=2,
    cpu_capability="AVX2",
    device="cpu",
    dtype="float32",
    torch="2.6.0",
)


#: Checks a hand-written trace may have asked for: what must be compared, phase and kind. ``MODULES`` is for tests only:
#: see ``checks_of_tests`` in conftest.py.
MODULES = ("modules", ("train", "module_out"))
_CHECKS = (MODULES, ("forward", ("predict", "module_out")), ("loss", ("train", "loss")), ("grad", ("train", "grad")))


@dataclass(frozen=True)
class Rec:
    """A record to write; ``values`` is a tensor or what ``torch.tensor`` takes."""

    kind: str
    name: str
    values: Any = 1.0
    slot: str = ""
    call: int = 0
    phase: str = "train"
    scope: str = ""

    @property
    def tensor(self) -> Tensor:
        return self.values if isinstance(self.values, Tensor) else torch.tensor(self.values)


def write_trace(
    folder: Path, *records: Rec, leaf_calls: dict[str, int] | None = None, without_gradient: tuple[str, ...] = (),
    never_executed: tuple[str, ...] = (), frozen: tuple[str, ...] = (),
    cut_off: tuple[list, ...] = (), not_finite: tuple[list, ...] = (), classes: tuple[str, ...] = (),
    called_in: str = "train", **provenance: Any,
) -> Trace:  # fmt: skip
    """Write and load a trace; ``leaf_calls`` counts calls in phase ``called_in``, ``provenance`` overrides."""
    provenance = {"checks": checks_of(records), **provenance}
    writer = TraceWriter(str(folder))
    for record in records:
        writer.add(record.phase, record.kind, record.name, record.call, record.slot, record.tensor, record.scope)
    calls = [dict(phase=called_in, name=name, count=count) for name, count in (leaf_calls or {}).items()]
    coverage = dict(
        leaf_calls=calls,
        never_executed=list(never_executed),
        without_gradient=list(without_gradient),
        frozen=list(frozen),
        cut_off=list(cut_off),
        not_finite=list(not_finite),
        classes={name: f"toy.{name.title()}" for name in classes},
    )
    writer.finish({**PROVENANCE, **provenance}, coverage)
    return Trace.load(folder)


def checks_of(*sides: Sequence[Rec]) -> list[str]:
    """Return the first check of which every side has a record, as a list; empty if there is none."""
    found = [{(record.phase, record.kind) for record in records} for records in sides]
    return [check for check, evidence in _CHECKS if all(evidence in kinds for kinds in found)][:1]


def judged(
    folder: Path, legacy: list[Rec], new: list[Rec], *, mapping: Mapping = SAME_NAMES, tolerance: Tolerance = EXACT,
    exclusions: tuple = (), on_legacy: dict[str, Any] | None = None, on_new: dict[str, Any] | None = None,
) -> Verdict:  # fmt: skip
    """Judge two hand-written sides; ``on_legacy`` and ``on_new`` go to :func:`write_trace`."""
    checks = checks_of(legacy, new)
    one = write_trace(folder / "legacy", *legacy, **{"checks": checks, **(on_legacy or {})})
    two = write_trace(folder / "new", *new, **{"checks": checks, **(on_new or {})})
    return judge(one, two, mapping, exclusions, tolerance)
