"""What defines a run of two sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from legacy_adapters.job import CHECKS
from legacy_adapters.precision import AMP
from legacy_adapters.steps import OWN, TWIN, step_of

from .compare import Tolerance
from .prepare import SIDES, varied

NEW_ADAPTER = Path(__file__).with_name("adapters") / "ddq_port.py"


MOST = 10_000  # objects of an image
MOST_STEPS = 100_000


class SettingsError(Exception):
    """Options that cannot be carried out on this machine; the message is one line."""


@dataclass(frozen=True)
class Task:
    """What is computed; two recordings of one task can be compared.

    Attributes:
        family: of the legacy side.
        variant: of the model.
        sizes: (h, w) of each image of the batch for inference; those of training follow, see :meth:`sizes_of`.
        objects: number of objects of each image; None draws it.
        seed: of inputs, weights and the models' random draws.
        checks: some of ``forward``, ``loss``, ``grad``, ``init``, ``train``.
        steps: of ``train``; 0 without it.
        epoch_length: steps after which an epoch ends; None for never.
        clip_order: ``twin`` sums the norms of gradients in the legacy side's order on both sides, ``own`` in each
            side's own.
        resume_at: step after which the legacy side's training is stopped; the new side goes on from its checkpoint,
            converted. 0 for both sides to train from the start.
        amp: ``bf16`` or ``fp16``: run both models under torch's autocast to that; None for none.
    """

    family: str
    variant: str
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[int, ...] | None
    seed: int
    checks: tuple[str, ...]
    steps: int = 0
    epoch_length: int | None = None
    clip_order: str = TWIN
    resume_at: int = 0
    amp: str | None = None

    def __post_init__(self) -> None:
        for size in self.sizes or (None,):
            if not (isinstance(size, tuple) and len(size) == 2 and all(_is_number(x, *SIDES) for x in size)):
                raise SettingsError(f"Sizes {self.sizes} are not (h, w) from {SIDES[0]} to {SIDES[1]} pixels each.")
        counts = self.objects
        if counts is not None and not (len(counts) == len(self.sizes) and all(_is_number(n, 0, MOST) for n in counts)):
            raise SettingsError(f"Objects {counts} are not a number from 0 to {MOST} for each of the images.")
        if not _is_number(self.seed, 0, 2**63 - 1):
            raise SettingsError(f"Seed {self.seed!r} is not a whole number from 0 to 2^63 - 1.")
        if not self.checks or not set(self.checks) <= set(CHECKS):
            raise SettingsError(f"Checks {self.checks} are not some of {', '.join(CHECKS)}.")
        if not _is_number(self.steps, *((1, MOST_STEPS) if "train" in self.checks else (0, 0))):
            raise SettingsError(f"Steps {self.steps!r} are not 1 to {MOST_STEPS} with check train, or 0 without it.")
        if self.epoch_length is not None and not _is_number(self.epoch_length, 1, 2**63 - 1):
            raise SettingsError(f"Epoch length {self.epoch_length!r} is not a number of steps from 1 on.")
        if not (self.resume_at == 0 or _is_number(self.resume_at, 1, self.steps - 1)):
            raise SettingsError(f"Resume at {self.resume_at!r} is not a step before the last of {self.steps}.")
        if self.clip_order not in (TWIN, OWN):
            raise SettingsError(f"Clip order {self.clip_order!r} is neither {TWIN} nor {OWN}.")
        if self.amp is not None and self.amp not in AMP:
            raise SettingsError(f"Autocast {self.amp!r} is none of {', '.join(AMP)}.")
        if self.amp is not None and "train" in self.checks:
            raise SettingsError("Steps of a training are not taken under autocast; use --amp with other checks.")

    def sizes_of(self, phase: str) -> tuple[tuple[int, int], ...]:
        """Return (h, w) of each image in a phase: ``predict``, ``train`` or that of a step."""
        step = step_of(phase)
        return varied(self.sizes, 1 + step if step is not None else int(phase == "train"))


def _is_number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and least <= value <= most


@dataclass(frozen=True)
class Machine:
    """Where and how both sides run.

    Attributes:
        device: ``cpu`` or ``cuda[:n]``.
        threads: of torch's CPU kernels.
        cpu_capability: ``default``, ``avx2`` or ``avx512``; None means torch's choice.
        time_limit: seconds for each process.
    """

    device: str
    threads: int
    cpu_capability: str | None
    time_limit: float


@dataclass(frozen=True)
class Sources:
    """Where code and weights come from.

    Attributes:
        legacy_repo: checkout, for families that need one.
        legacy_python: interpreter of the legacy side; None means the current one, with compat shims.
        checkpoint: weights of either layout; None means seeded ones.
        new_adapter: adapter file of the new side.
        require_known_commit: refuse legacy code that is not as it was published.
    """

    legacy_repo: Path | None = None
    legacy_python: str | None = None
    checkpoint: Path | None = None
    new_adapter: Path = NEW_ADAPTER
    require_known_commit: bool = False


@dataclass(frozen=True)
class RunOptions:
    """Everything that defines a parity run.

    Attributes:
        task: what is computed.
        sources: code and weights.
        machine: where.
        dtype: ``float32`` or ``float64``, of both sides.
        tolerance: what counts as equal.
        replay: force the legacy side's discrete decisions and random draws on the new side.
        isolate: run the new side once more, every module on what its twin was given.
    """

    task: Task
    sources: Sources
    machine: Machine
    dtype: str
    tolerance: Tolerance
    replay: bool
    isolate: bool = False

    def __post_init__(self) -> None:
        if self.isolate and not set(self.task.checks) - {"train", "init"}:
            what = "Steps of a training" if "train" in self.task.checks else "Check init"
            raise SettingsError(f"{what} cannot be isolated; check forward, loss or grad as well.")
        if self.task.amp is not None and self.dtype != "float32":
            raise SettingsError(f"Autocast leaves {self.dtype} as it is; use --amp with --dtype float32.")
        if self.task.resume_at and self.dtype != "float32":
            raise SettingsError(f"Checkpoints hold float32, so a training of {self.dtype} cannot be resumed.")
