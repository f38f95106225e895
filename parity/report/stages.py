"""Group what was compared, and how far autocast moves a model, by part of the model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from legacy_adapters.recording.scripts import PHASE as SCRIPT
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.tasks import made_up, probes
from legacy_adapters.training.phases import step_of

from ..comparing.compare import Comparison
from ..comparing.drift import Drift
from ..decisions.kinds import title_of
from ..traces.kinds import OF_TAPS, Kind

_PHASES = {
    "predict": "inference", "train": "training", made_up.PHASE: "made-up predictions", probes.PHASE: "at the threshold",
    SCRIPT: "script",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A line of the table.

    Attributes:
        name: part of the model, in order of execution.
        records: compared.
        identical: with the same bits.
        accepted: equal under the tolerance.
        worst: the comparison with the largest difference, None if all are identical.
    """

    name: str
    records: int
    identical: int
    accepted: int
    worst: Comparison | None


def stages(comparisons: Sequence[Comparison], forgiven: Iterable[Comparison] = ()) -> tuple[Stage, ...]:
    """Group comparisons by part of the model, in the order the parts first ran.

    Args:
        comparisons: all pairs.
        forgiven: those that count as accepted although they are not, see :attr:`Verdict.without_effect`.
    """
    harmless = {id(comparison) for comparison in forgiven}
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(stage_of(comparison), []).append(comparison)
    return tuple(
        Stage(
            name,
            len(group),
            sum(comparison.identical for comparison in group),
            sum(comparison.accepted or id(comparison) in harmless for comparison in group),
            max((c for c in group if not c.identical), key=_size, default=None),
        )
        for name, group in groups.items()
    )


def stage_of(comparison: Comparison) -> str:
    """Name the stage of a pair, see :func:`stage_of_record`."""
    return stage_of_record(comparison.pair.new)


def stage_of_record(record: Record) -> str:
    """Name the stage of a record: ``weights``, ``inference: head``, ``training: losses`` ..."""
    if record.kind == Kind.PARAM:
        return "weights"
    part = Kind(record.kind).part
    if record.kind in OF_TAPS:
        part = title_of(record)
    phase = _PHASES.get(record.phase, "steps" if step_of(record.phase) is not None else record.phase)
    return f"{phase}: {part or record.name.split('.')[0] or _whole(record)}"


def _whole(record: Record) -> str:
    """Return what the whole model is called: a script need not have a detector."""
    return "model" if record.phase == SCRIPT else "detector"


def _size(comparison: Comparison) -> float:
    gap = comparison.difference.max_abs if comparison.difference else 0.0
    return math.inf if math.isnan(gap) or is_choice(comparison) else gap


def is_choice(comparison: Comparison) -> bool:
    """Tell a record of indices or labels: how far two of these are apart says nothing."""
    return comparison.pair.new.kind == Kind.TAP and not comparison.pair.new.is_float


@dataclass(frozen=True)
class DriftOfStage:
    """How far autocast moves one part of the new side from float32, in shares of its results.

    Attributes:
        name: as of :class:`Stage`.
        records: measured.
        median: of their shares.
        largest: share.
        worst: the record that has it.
    """

    name: str
    records: int
    median: float
    largest: float
    worst: Record


def drift_stages(drifts: Sequence[Drift]) -> tuple[DriftOfStage, ...]:
    """Group what was measured by part of the model, in the order the parts first ran."""
    groups: dict[str, list[Drift]] = {}
    for drift in drifts:
        groups.setdefault(stage_of_record(drift.record), []).append(drift)
    worst = {name: max(group, key=lambda drift: drift.share) for name, group in groups.items()}
    return tuple(
        DriftOfStage(
            name, len(group), statistics.median(d.share for d in group), worst[name].share, worst[name].record
        )
        for name, group in groups.items()
    )


def record_name(record: Record) -> str:
    slot = f".{record.slot}" if record.slot else ""
    step = "" if step_of(record.phase) is None else f"{record.phase} "
    name = record.name or (_whole(record) if record.phase == SCRIPT else "")
    return f"{step}{name}#{record.call}{slot}"


def gap_text(comparison: Comparison | None) -> str:
    """Return the largest absolute difference of a pair as it is printed; 0 of none."""
    if comparison is None or comparison.difference is None:
        return "0"
    gap = comparison.difference.max_abs
    return "n/a" if math.isnan(gap) or is_choice(comparison) else f"{gap:.3g}"
