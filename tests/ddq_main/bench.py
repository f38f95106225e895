"""Plant faults in the port and see what the parity engine says of them, beside the real official code."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from converters.rules.ports import port
from legacy_adapters.launch import SideError
from parity.comparing.compare import Tolerance
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.verdict.verdict import MATCH, ended, judge

from .fault import VARIABLE, Fault

ADAPTER = Path(__file__).with_name("adapter.py")
MACHINE = Machine(device="cpu", threads=1, cpu_capability=None, time_limit=900.0)
SIZES, OBJECTS = ((64, 96), (80, 64)), (3, 4)
MISSED, MISNAMED, NAMED = "missed", "misnamed", "named"


@dataclass(frozen=True)
class Finding:
    """What was said: outcome, the place that was named, the sentence that goes with it."""

    outcome: str
    where: str
    message: str

    def judged(self, fault: Fault) -> str:
        """Tell whether a fault was missed, misnamed or named."""
        if self.outcome == MATCH:
            return MISSED
        return NAMED if self.where in fault.where else MISNAMED


class Bench:
    """Compare one family's port with its legacy side, which is recorded once.

    Args:
        family: its name.
        folder: for everything that is written.
        repo: checkout of the official code.
        seed: of weights and inputs.
        sizes: (h, w) of each image in pixels.
        objects: number of objects of each.
        variant: small model of the family.
        adapter: of the new side, which plants the fault.
        checkpoint: weights; None for seeded ones.
    """

    def __init__(
        self,
        family: str,
        folder: Path,
        repo: Path,
        seed: int = 0,
        sizes: tuple[tuple[int, int], ...] = SIZES,
        objects: tuple[int, ...] = OBJECTS,
        variant: str = "tiny",
        adapter: Path = ADAPTER,
        checkpoint: Path | None = None,
    ) -> None:
        task = Task(port(family, variant), sizes, objects, seed, ("forward", "loss", "grad"))
        sources = Sources(legacy_repo=repo, new_adapter=adapter, checkpoint=checkpoint)
        folder.mkdir()
        self.port = task.port
        self.sides = Sides(task, sources, MACHINE, prepare(task, sources, MACHINE), folder)
        self.legacy = self.sides.legacy()

    def see(self, name: str = "") -> Finding:
        """Plant the fault of this name, or none, and compare."""
        with mock.patch.dict(os.environ, {VARIABLE: name}):
            try:
                made = self.sides.new("new", beside=str(self.legacy.folder), twin=self.legacy.records)
                with self.sides.passing(made) as new:
                    verdict = ended(judge(self.legacy, new, self.port.mapping, self.port.exclusions, Tolerance()))
            except SideError as error:
                return Finding("CRASH", "", str(error))
        first = verdict.divergence
        if first is None:
            return Finding(verdict.outcome, "", " ".join(verdict.reasons))
        return Finding(verdict.outcome, first.where, first.message)
