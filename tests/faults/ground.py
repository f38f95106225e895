"""The legacy side of a setting, recorded once, and the new side that is compared with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from legacy_adapters.tasks.initialising import INIT, without_init
from parity.cli.early import DEFAULT_SIZES
from parity.comparing.compare import DERIVED, EXACT, Tolerance
from parity.comparing.evidence import TraceEvidence
from parity.golden import golden
from parity.golden.evidence import GoldenEvidence
from parity.golden.golden import Golden
from parity.runs.run import Measured, measure_legacy
from parity.sides.prepared import Prepared
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.traces.trace import Trace, decisions
from parity.verdict.verdict import Verdict, ended, judge
from tests.models import GOLDEN, port

MACHINE = Machine(device="cpu", threads=1, cpu_capability=None, time_limit=120.0)
#: Legacy side where it runs: mmdet 3.3.0's own DDQ-DETR, which needs no checkout.
LIVE_FAMILY = "mmdet_ddq"
GOLDENS = Path(__file__).parents[1] / "golden" / "ddq_detr"

#: Setting of the faults of a training: golden files hold none, so its legacy side always runs.
STEPS = "steps"
#: Setting that is as the plain one and computes no losses: of it less than half the records.
INFERENCE = "inference"
#: Settings whose legacy side always runs, under derived tolerance, too: what of the task is not as in the default run.
LIVE: dict[str, dict[str, Any]] = {
    STEPS: dict(sizes=((64, 64),), checks=("train",), steps=4, epoch_length=2),
    "batch": dict(),
    "bottleneck": dict(),
    "uneven": dict(objects=(3, 0, 5)),
    "empty": dict(objects=(0, 0, 0)),
    "init": dict(checks=("init",)),
}
#: Golden files of the official code by the setting they were recorded in.
SETTINGS = {
    "plain": GOLDEN,
    INFERENCE: GOLDENS.with_name("inference.npz"),
    "few": GOLDENS / "fewer_tokens_than_queries.npz",
    "swin": GOLDEN.with_name("tiny_swinl.npz"),
}


@dataclass(frozen=True)
class NewSide:
    """The new side's trace; under derived tolerance also that in float64."""

    trace: Trace
    reference: Trace | None


@dataclass(frozen=True)
class Ground:
    """One setting under one tolerance.

    Attributes:
        task: what is computed.
        legacy: a live trace, or the golden file.
        sides: run the new side.
        measured: rounding of a live legacy side under derived tolerance, else None.
        given: what the new side is given of the legacy side, by field of its job: decisions and draws, states.
    """

    task: Task
    legacy: Trace | Golden
    sides: Sides
    measured: Measured | None = None
    given: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def record(cls, setting: str, tolerance: str, folder: Path) -> Ground:
        """Prepare a setting in ``folder``; with anything but a golden file this runs the legacy side."""
        if setting in LIVE or tolerance == EXACT:
            return cls.live(task_of(setting), tolerance, folder)
        recorded = _without_init(golden.load(SETTINGS[setting]))
        sides = _sides(recorded.task, folder, Sources(), recorded.check_given, variant_calls=False)
        return cls(recorded.task, recorded, sides, given=dict(replay=sides.write_decisions(recorded.decisions)))

    @classmethod
    def live(cls, task: Task, tolerance: str, folder: Path, checkpoint: Path | None = None) -> Ground:
        """Run the legacy side in ``folder``, on seeded weights or those of ``checkpoint``."""
        sides = _sides(task, folder, Sources(checkpoint=checkpoint))
        legacy = sides.legacy()
        given = dict(twin=legacy.records)
        if tolerance == EXACT:
            return cls(task, legacy, sides, given=given)
        given |= dict(replay=sides.write_decisions(decisions(legacy)), states=str(legacy.folder))
        measured = measure_legacy(sides, legacy, lambda step: None, states=given["states"])
        return cls(task, legacy, sides, measured, given)

    @cached_property
    def clean(self) -> NewSide:
        """The new side without a fault."""
        return self._run("clean")

    @contextmanager
    def run(self, **changes: object) -> Iterator[NewSide]:
        """Run the new side, with changed fields of its job; the traces are removed in the end."""
        try:
            yield self._run("planted", **changes)
        finally:
            for name in ("planted", "planted64"):
                shutil.rmtree(self.sides.folder / name, ignore_errors=True)

    def _run(self, name: str, **changes: object) -> NewSide:
        beside = str(self.legacy.folder) if isinstance(self.legacy, Trace) else None
        trace = self.sides.new(name, beside=beside, **self.given, **changes)
        if "replay" not in self.given:
            return NewSide(trace, None)
        changes["checks"] = without_init(self.task.checks)
        beside = str(self.measured.reference.folder) if self.measured is not None else None
        reference = self.sides.new(f"{name}64", dtype="float64", decide=False, beside=beside, **self.given, **changes)
        return NewSide(trace, reference)

    def judge(self, new: NewSide) -> Verdict:
        """Compare, as ``ddq-parity run`` and ``ddq-parity check`` do.

        Raises:
            SideError: if the new side crashed, and what it recorded until then does not tell why.
        """
        mapping = self.task.port.mapping
        tolerance = Tolerance(EXACT if new.reference is None else DERIVED)
        exclusions = self.task.port.exclusions
        return ended(judge(self.legacy, new.trace, mapping, exclusions, tolerance, self._evidence(new)))

    def _evidence(self, new: NewSide) -> GoldenEvidence | TraceEvidence | None:
        if new.reference is None:
            return None
        if self.measured is None:
            return GoldenEvidence(self.legacy, new.trace, new.reference)
        return TraceEvidence(self.legacy, self.measured.reference, self.measured.spread, new.trace, new.reference)


def task_of(setting: str) -> Task:
    """Return what the live sides of a setting compute."""
    if setting in LIVE:
        default = dict(sizes=DEFAULT_SIZES, objects=None, seed=0, checks=("forward", "loss", "grad"))
        return Task(port(LIVE_FAMILY, "tiny_4scale"), **{**default, **LIVE[setting]})
    recorded = golden.load(SETTINGS[setting]).task
    return replace(recorded, port=port(LIVE_FAMILY, recorded.port.variant.name), checks=without_init(recorded.checks))  # which has a setting of its own


def _without_init(recorded: Golden) -> Golden:
    """Leave out how the model is initialised: that check has a setting of its own."""
    checks = without_init(recorded.task.checks)
    coverage = {name: value for name, value in recorded.coverage.items() if name != INIT}
    coverage["records"] = [entry for entry in coverage.get("records", ()) if entry["phase"] != INIT]
    return replace(
        recorded,
        task=replace(recorded.task, checks=checks),
        provenance={**recorded.provenance, "checks": list(checks)},
        coverage=coverage,
        records=tuple(record for record in recorded.records if record.kind != INIT),
    )


def _sides(
    task: Task, folder: Path, sources: Sources, check: Callable[[Prepared], None] = lambda prepared: None,
    variant_calls: bool = True,
) -> Sides:  # fmt: skip
    prepared = prepare(task, sources, MACHINE)
    check(prepared)
    folder.mkdir()
    return Sides(task, sources, MACHINE, prepared, folder, variant_calls)
