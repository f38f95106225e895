"""The legacy side of a setting, recorded once, and the new side that is compared with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from converters import families
from parity import golden
from parity.cli import GOLDEN
from parity.compare import DERIVED, EXACT, Tolerance
from parity.exclusions import EXCLUSIONS
from parity.golden import Golden, GoldenEvidence
from parity.settings import Machine, Sources, Task
from parity.sides import Sides, prepare
from parity.trace import Trace
from parity.verdict import Verdict, judge

MACHINE = Machine(device="cpu", threads=1, cpu_capability=None, time_limit=120.0)
#: Legacy side under exact tolerance: mmdet 3.3.0's own DDQ-DETR, which needs no checkout.
EXACT_FAMILY = "mmdet_ddq"
GOLDENS = Path(__file__).parents[1] / "golden" / "ddq_detr"

#: Golden files of the official code by the setting they were recorded in.
SETTINGS = {
    "plain": GOLDEN,
    "few": GOLDENS / "fewer_tokens_than_queries.npz",
    "swin": GOLDENS / "swin.npz",
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
        legacy: a live trace under exact tolerance, a golden file under derived tolerance.
        sides: run the new side.
        replay: the golden file's decisions and draws; None under exact tolerance.
    """

    task: Task
    legacy: Trace | Golden
    sides: Sides
    replay: str | None = field(default=None)

    @classmethod
    def record(cls, setting: str, tolerance: str, folder: Path) -> Ground:
        """Prepare a setting in ``folder``; under exact tolerance this runs the legacy side."""
        recorded = golden.load(SETTINGS[setting])
        family = EXACT_FAMILY if tolerance == EXACT else recorded.task.family
        task = replace(recorded.task, family=family)
        prepared = prepare(task, Sources(), MACHINE)
        folder.mkdir()
        sides = Sides(task, Sources(), MACHINE, prepared, folder)
        if tolerance == EXACT:
            return cls(task, sides.legacy(), sides)
        recorded.check_given(prepared)
        return cls(task, recorded, sides, sides.write_decisions(recorded.decisions))

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
        trace = self.sides.new(name, replay=self.replay, **changes)
        if self.replay is None:
            return NewSide(trace, None)
        reference = self.sides.new(f"{name}64", dtype="float64", replay=self.replay, decide=False, **changes)
        return NewSide(trace, reference)

    def judge(self, new: NewSide) -> Verdict:
        """Compare, as ``ddq-parity run`` and ``ddq-parity check`` do."""
        mapping = families.mapping(self.task.family, self.task.variant)
        exclusions = EXCLUSIONS[self.task.family]
        if new.reference is None:
            return judge(self.legacy, new.trace, mapping, exclusions, Tolerance(EXACT))
        evidence = GoldenEvidence(self.legacy, new.trace, new.reference)
        return judge(self.legacy, new.trace, mapping, exclusions, Tolerance(DERIVED), evidence)
