"""Clean runs: none may raise an alarm.

Under derived tolerance over variants, seeds, sizes, threads and CPU kernels; under exact tolerance over variants,
seeds, sizes (odd ones, one image, three), numbers of objects (none, 70) and threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from legacy_adapters.launch import SideError
from parity.comparing.compare import DERIVED, EXACT, Tolerance
from parity.comparing.evidence import TraceEvidence
from parity.golden import golden
from parity.runs import capture
from parity.runs.run import MOST_SEEDS, measure_legacy
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.traces.trace import decisions
from parity.verdict.verdict import MATCH, Verdict, ended, judge
from tests.models import GOLDEN, port

from .bench import CRASH
from .ground import GOLDENS, LIVE_FAMILY, MACHINE

#: Of the new side; the legacy side is measured once per case.
MACHINES = (dict(threads=1), dict(threads=2), dict(threads=1, cpu_capability="default"))
_CHECKS = ("forward", "loss", "grad")
_SIZES = (((128, 160), (96, 128)), ((96, 96),), ((64, 192), (160, 64)))


@dataclass(frozen=True)
class Alarm:
    """A clean run that was not a match, and where the sides were said to part."""

    case: str
    outcome: str
    message: str


@dataclass(frozen=True)
class LiveCase:
    """mmdet 3.3.0's own DDQ-DETR, measured live, against the port on each of :data:`MACHINES`."""

    variant: str
    seed: int
    sizes: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        sizes = ", ".join(f"{h}x{w}" for h, w in self.sizes)
        return f"{self.variant}, seed {self.seed}, {sizes}"

    def verdicts(self, folder: Path) -> Iterator[tuple[str, Verdict]]:
        """Yield what machine the new side ran on and the verdict; the next seed's where ``ddq-parity run`` takes that."""
        machines = {number: machine for number, machine in enumerate(MACHINES)}
        for seed in range(self.seed, self.seed + MOST_SEEDS):
            for number, verdict in self._under(seed, machines, folder / str(seed)):
                if not verdict.is_too_loose or seed == self.seed + MOST_SEEDS - 1:
                    yield str(machines.pop(number)), verdict

    def _under(self, seed: int, machines: dict, folder: Path) -> Iterator[tuple[int, Verdict]]:
        if not machines:
            return
        folder.mkdir()
        task = Task(port(LIVE_FAMILY, self.variant), self.sizes, None, seed, _CHECKS)
        sides = Sides(task, Sources(), MACHINE, prepare(task, Sources(), MACHINE), folder)
        legacy = sides.legacy()
        replay = sides.write_decisions(decisions(legacy))
        measured = measure_legacy(sides, legacy, progress=lambda step: None)
        mapping, exclusions = task.port.mapping, task.port.exclusions
        for number, machine in tuple(machines.items()):
            new = sides.new(f"new{number}", replay=replay, **machine)
            wide = sides.new(f"wide{number}", dtype="float64", replay=replay, decide=False, **machine)
            evidence = TraceEvidence(legacy, measured.reference, measured.spread, new, wide)
            yield number, ended(judge(legacy, new, mapping, exclusions, Tolerance(DERIVED), evidence))


@dataclass(frozen=True)
class ExactCase:
    """mmdet 3.3.0's own DDQ-DETR against the port, both on one machine, bit by bit.

    Attributes:
        variant: of the model.
        seed: of inputs, weights and draws.
        sizes: (h, w) of each image.
        objects: of each image; None draws them.
        threads: of both sides.
    """

    variant: str
    seed: int
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[int, ...] | None
    threads: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{h}x{w}" for h, w in self.sizes)
        return f"{self.variant}, seed {self.seed}, {sizes}, objects {self.objects or 'drawn'}, threads {self.threads}"

    def verdicts(self, folder: Path) -> Iterator[tuple[str, Verdict]]:
        """Yield one verdict."""
        task = Task(port(LIVE_FAMILY, self.variant), self.sizes, self.objects, self.seed, _CHECKS)
        machine = Machine("cpu", self.threads, None, 300.0)
        sides = Sides(task, Sources(), machine, prepare(task, Sources(), machine), folder)
        legacy = sides.legacy()
        new = sides.new(twin=legacy.records)
        mapping, exclusions = task.port.mapping, task.port.exclusions
        yield "exact", ended(judge(legacy, new, mapping, exclusions, Tolerance(EXACT), None))


@dataclass(frozen=True)
class GoldenCase:
    """The official code's recorded numbers against the port."""

    file: Path
    threads: int

    def __str__(self) -> str:
        return f"golden file {self.file.stem}, threads {self.threads}"

    def verdicts(self, folder: Path) -> Iterator[tuple[str, Verdict]]:
        """Yield one verdict."""
        recorded = golden.load(self.file)
        machine = Machine("cpu", self.threads, None, 300.0)
        prepared = prepare(recorded.task, Sources(), machine)
        yield "", capture.check(recorded, Sources(), machine, prepared, folder, progress=lambda step: None)


Case = LiveCase | GoldenCase | ExactCase

_VARIANTS = ("tiny_4scale", "tiny_5scale", "tiny_swinl", "tiny_1class")
#: Sizes and objects of the runs under exact tolerance: odd sides, one image, three, the largest last, few tokens.
_BATCHES = (
    (((97, 131), (121, 65)), None),
    (((128, 96),), (0,)),
    (((64, 80), (96, 128), (80, 64)), (3, 0, 2)),
    (((128, 160), (96, 128)), (70, 1)),
    (((33, 47),), None),
    (((64, 192), (160, 64), (111, 113)), None),
    (((96, 96), (96, 96)), (0, 0)),
    (((77, 77), (128, 33), (50, 160)), (1, 70, 0)),
)


def cases() -> list[Case]:
    """Return what is run: 12 live cases on 3 machines each and the golden files, and 56 cases under exact tolerance."""
    live = [LiveCase(variant, seed, _SIZES[seed % len(_SIZES)]) for variant in _VARIANTS for seed in (1, 2, 3)]
    files = [*sorted(GOLDEN.parent.glob("*.npz")), *sorted(GOLDENS.glob("*.npz"))]
    return [*live, *(GoldenCase(file, 1 + number % 2) for number, file in enumerate(files)), *_exact_cases()]


def _exact_cases() -> Iterator[ExactCase]:
    """Yield every batch with each variant, seeds and threads in turn, and twice as many of the default variant."""
    seeds = iter(range(10, 1000))
    for index, (sizes, objects) in enumerate(_BATCHES):
        for place, variant in enumerate((*_VARIANTS, "tiny_4scale", "tiny_5scale", "tiny_4scale")):
            yield ExactCase(variant, next(seeds), sizes, objects, 1 + (index + place) % 2)


def alarms(case: Case, folder: Path) -> tuple[int, list[Alarm]]:
    """Run ``case`` in ``folder``, which is made and removed; return the number of runs and the false alarms.

    A crash counts as one, and its run is not counted.
    """
    folder.mkdir()
    runs, wrong = 0, []
    try:
        for machine, verdict in case.verdicts(folder):
            runs += 1
            if verdict.outcome != MATCH:
                said = verdict.divergence.message if verdict.divergence else " ".join(verdict.reasons)
                wrong.append(Alarm(f"{case} {machine}", verdict.outcome, said))
    except SideError as error:
        wrong.append(Alarm(str(case), CRASH, f"{error} {error.details}"))
    finally:
        shutil.rmtree(folder)
    return runs, wrong
