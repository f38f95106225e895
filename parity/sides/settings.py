"""What defines a run of two sides. Imports no torch: options are checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.rules.ports import Port, port
from legacy_adapters.family import Exclusion, Family, Side
from legacy_adapters.job import CHECKS
from legacy_adapters.training.phases import rank_of, step_of

from .sizes import SIDES, varied

if TYPE_CHECKING:
    from ..comparing.compare import Tolerance

#: As in :mod:`legacy_adapters.training.steps` and :mod:`legacy_adapters.numerics.precision`, which load torch.
TWIN, OWN = "twin", "own"
AMP = ("bf16", "fp16")

MOST = 10_000  # objects of an image
MOST_STEPS = 100_000
MOST_RANKS = 2
_WHY_TWO = "a sum of more than two gradients has other bits in another order of the parameters"
#: Of several ranks, step -> those that have no objects in it.
_BARE = {2: (1,), 3: (0, 1), 4: (0,)}
FEWEST_STEPS_OF_RANKS = max(_BARE)


class SettingsError(Exception):
    """Options that cannot be carried out on this machine; the message is one line."""


@dataclass(frozen=True)
class Task:
    """What is computed; two recordings of one task can be compared.

    Attributes:
        port: the model and its family.
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
        ranks: how many processes train together, each with batches of its own; more than 1 with check train alone.
        amp: ``bf16`` or ``fp16``: run both models under torch's autocast to that; None for none.
    """

    port: Port
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[int, ...] | None
    seed: int
    checks: tuple[str, ...]
    steps: int = 0
    epoch_length: int | None = None
    clip_order: str = TWIN
    resume_at: int = 0
    ranks: int = 1
    amp: str | None = None

    def __post_init__(self) -> None:
        if self.port.family.inputs is not None and (self.sizes or self.objects is not None):
            raise SettingsError(f"Family {self.port.family.name} has inputs of its own; leave --size and --objects out.")
        for size in self.sizes or (() if self.port.family.inputs is not None else (None,)):
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
        if not _is_number(self.ranks, 1, MOST_RANKS):
            raise SettingsError(f"Ranks {self.ranks!r} are not 1 to {MOST_RANKS}; {_WHY_TWO}.")
        if self.ranks > 1:
            self._check_ranks()
        if self.amp is not None and self.amp not in AMP:
            raise SettingsError(f"Autocast {self.amp!r} is none of {', '.join(AMP)}.")
        if self.amp is not None and "train" in self.checks:
            raise SettingsError("Steps of a training are not taken under autocast; use --amp with other checks.")

    def _check_ranks(self) -> None:
        """Refuse what several ranks cannot do."""
        if self.checks != ("train",):
            others = ", ".join(check for check in self.checks if check != "train")
            what = f"check{'s' if ',' in others else ''} {others}"
            raise SettingsError(f"Ranks train together; run {what} without --ranks, and check train alone with it.")
        if self.steps < FEWEST_STEPS_OF_RANKS:
            raise SettingsError(
                f"With --ranks take at least {FEWEST_STEPS_OF_RANKS} steps, found {self.steps}: in step 2 rank 1 has "
                "no objects, in step 3 no rank has any, in step 4 rank 0 has none."
            )
        if self.objects is not None:
            raise SettingsError("With --ranks the numbers of objects follow from step and rank; leave --objects out.")
        if self.resume_at:
            raise SettingsError("A training of ranks is not stopped and resumed; leave --resume-at or --ranks out.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Task:
        """Undo `as_dict`.

        Raises:
            FamilyError: if there is no such family or variant.
            KeyError, TypeError: if it is no task.
            SettingsError: if it cannot be carried out.
        """
        kept = dict(data)
        of = port(kept.pop("family"), kept.pop("variant"))
        sizes = tuple((h, w) for h, w in kept.pop("sizes"))
        objects, checks = kept.pop("objects"), tuple(kept.pop("checks"))
        return cls(port=of, sizes=sizes, objects=None if objects is None else tuple(objects), checks=checks, **kept)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        kept = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "port"}
        return {"family": self.port.family.reference, "variant": self.port.variant.name, **kept}

    @property
    def every_rank(self) -> tuple[int | None, ...]:
        """The ranks that train together; the only one of a training in one process has no number."""
        return tuple(range(self.ranks)) if self.ranks > 1 else (None,)

    def sizes_of(self, phase: str) -> tuple[tuple[int, int], ...]:
        """Return (h, w) of each image in a phase: ``predict``, ``train`` or that of a step, on a rank or alone."""
        step, rank = step_of(phase), rank_of(phase)
        if step is None:
            return varied(self.sizes, int(phase == "train"))
        return varied(self.sizes, 2 + (step - 1) * self.ranks + (rank or 0))

    def objects_of(self, phase: str) -> tuple[int, ...] | None:
        """Return the number of objects of each image in a phase; None draws it.

        Of two ranks one has an odd number and one an even one, so that the mean is no whole number and no rank's own.
        The steps of :data:`_BARE` are without objects on some.
        """
        step, rank = step_of(phase), rank_of(phase)
        if step is None or rank is None:
            return self.objects
        if rank in _BARE.get(step, ()):
            return (0,) * len(self.sizes)
        from legacy_adapters.numerics.seeding import seed_of  # loads torch

        drawn = [seed_of(self.seed, f"objects of image {image} in {phase}") % 4 for image in range(len(self.sizes))]
        # as without ranks the first image does not hold the most
        counts = [4] + [5 + number for number in drawn[1:]] if len(drawn) > 1 else [4 + drawn[0]]
        counts[-1] += (sum(counts) - rank) % 2
        return tuple(counts)


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
        new_adapter: adapter file of the new side; None means the family's own.
        require_known_commit: refuse legacy code that is not as it was published.
        inputs: safetensors file of what both sides are given, see :mod:`.own_inputs`; None for made-up inputs.
        images: image files of which a batch is made.
        image_sizes: (h, w) of each of these; None to shrink what is large.
    """

    legacy_repo: Path | None = None
    legacy_python: str | None = None
    checkpoint: Path | None = None
    new_adapter: Path | None = None
    require_known_commit: bool = False
    inputs: Path | None = None
    images: tuple[Path, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] | None = None

    @property
    def own_inputs(self) -> bool:
        """Tell whether a user brings the inputs."""
        return self.inputs is not None or bool(self.images)

    def new_side(self, family: Family) -> Side:
        """Return how the new side of a family is run from these sources."""
        if self.new_adapter is None:
            return family.new
        return replace(family.new, title=self.new_adapter.stem, adapter=self.new_adapter.resolve(), needs=())


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
        exclusions: beside the family's, each with its reason.
    """

    task: Task
    sources: Sources
    machine: Machine
    dtype: str
    tolerance: Tolerance
    replay: bool
    isolate: bool = False
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def excluded(self) -> tuple[Exclusion, ...]:
        """Every exclusion, those of the family first."""
        return (*self.task.port.exclusions, *self.exclusions)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; paths are written as text."""
        parts = (self.sources, self.machine, self.tolerance)
        named = dict(zip(("sources", "machine", "tolerance"), map(asdict, parts), strict=True))
        plain = {"dtype": self.dtype, "replay": self.replay, "isolate": self.isolate}
        return {"task": self.task.as_dict(), **named, **plain, "exclusions": [asdict(e) for e in self.exclusions]}

    def __post_init__(self) -> None:
        if self.isolate and self.task.ranks > 1:
            raise SettingsError("Steps of a training cannot be isolated; leave --isolate or --ranks out.")
        if self.task.ranks > 1 and self.machine.device != "cpu":
            raise SettingsError("Ranks are joined by gloo, which is for the CPU; with --ranks use --device cpu.")
        if self.isolate and not set(self.task.checks) - {"train", "init"}:
            what = "Steps of a training" if "train" in self.task.checks else "Check init"
            raise SettingsError(f"{what} cannot be isolated; check forward, loss or grad as well.")
        if self.task.amp is not None and self.dtype != "float32":
            raise SettingsError(f"Autocast leaves {self.dtype} as it is; use --amp with --dtype float32.")
        if self.task.resume_at and self.dtype != "float32":
            raise SettingsError(f"Checkpoints hold float32, so a training of {self.dtype} cannot be resumed.")


def task_of(settings: dict[str, Any]) -> Task:
    """Take the fields of a task out of all settings of a command.

    Raises:
        SettingsError: if they cannot be carried out.
    """
    return Task(**{field.name: settings.pop(field.name) for field in fields(Task)})


def sources_of(settings: dict[str, Any]) -> Sources:
    """Take the sources out of all settings of a command."""
    return Sources(**{field.name: settings.pop(field.name) for field in fields(Sources) if field.name in settings})


def check_options(settings: dict[str, Any]) -> None:
    """Refuse options of a run, or of a recording, that cannot be carried out together; nothing is loaded for it.

    Args:
        settings: the fields of :class:`Task` and what else a command was given.

    Raises:
        SettingsError: saying which.
    """
    task = Task(**{field.name: settings[field.name] for field in fields(Task)})
    if "replay" in settings:
        machine = Machine(settings["device"], settings["threads"], None, settings["time_limit"])
        RunOptions(task, Sources(), machine, settings["dtype"], settings["tolerance"], False, settings["isolate"])
