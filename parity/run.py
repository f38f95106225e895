"""Run both sides of a family on the same weights and inputs and judge what they computed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from converters import checkpoint, detect, engine, families, layout
from ddq_port import configs
from legacy_adapters import families as legacy_families
from legacy_adapters.inputs import Batch
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side

from .compare import Tolerance
from .exclusions import EXCLUSIONS
from .pairing import LEGACY, NEW
from .prepare import seeded_batch, seeded_weights
from .trace import Trace, write_decisions
from .verdict import Verdict, judge

NEW_ADAPTER = Path(__file__).with_name("adapters") / "ddq_port.py"


@dataclass(frozen=True)
class RunOptions:
    """Everything that defines a parity run.

    Attributes:
        family: of the legacy side.
        variant: of the model.
        legacy_repo: checkout, for families that need one.
        legacy_python: interpreter of the legacy side; None means the current one, with compat shims.
        checkpoint: weights of either layout; None means seeded ones.
        new_adapter: adapter file of the new side.
        sizes: (h, w) of each image of the batch.
        objects: number of objects of each image; None draws it.
        seed: of inputs, weights and the models' random draws.
        checks: some of ``forward``, ``loss``, ``grad``.
        device: of both sides.
        threads: of both sides.
        cpu_capability: of both sides: ``default``, ``avx2`` or ``avx512``; None means torch's choice.
        tolerance: what counts as equal.
        replay: force the legacy side's discrete decisions and random draws on the new side.
        time_limit: seconds for each side.
    """

    family: str
    variant: str
    legacy_repo: Path | None
    legacy_python: str | None
    checkpoint: Path | None
    new_adapter: Path
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[int, ...] | None
    seed: int
    checks: tuple[str, ...]
    device: str
    threads: int
    cpu_capability: str | None
    tolerance: Tolerance
    replay: bool
    time_limit: float


class SettingsError(Exception):
    """Options that cannot be carried out on this machine; the message is one line."""


@dataclass(frozen=True)
class Prepared:
    """What both sides are given.

    Attributes:
        weights: state dict of each side.
        batch: images and objects.
    """

    weights: dict[str, Mapping[str, Tensor]]
    batch: Batch


def prepare(options: RunOptions) -> Prepared:
    """Check the options and make weights and inputs; nothing is written.

    Raises:
        SettingsError: if the device is not there.
        legacy_families.RepoError: if the legacy repo is not one.
        converters.errors: if the checkpoint cannot be read or does not fit.
    """
    legacy_families.get(options.family).check_repo(options.legacy_repo)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"Device {options.device} is not available to torch here; use --device cpu.")
    batch = seeded_batch(options.sizes, options.seed, _num_classes(options), options.objects)
    return Prepared(both_layouts(options), batch)


def run(options: RunOptions, prepared: Prepared, folder: Path, progress: Callable[[str], None]) -> Verdict:
    """Run both sides in ``folder``, which must exist and be empty, and judge.

    Leaves there: the options, weights and inputs of both sides, ``legacy`` and ``new`` traces, their logs and, with
    ``replay``, the decisions bundle.

    Args:
        options: what to do.
        prepared: of the same options.
        folder: for everything that is written.
        progress: is told each step.

    Raises:
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    family = legacy_families.get(options.family)
    folder = folder.absolute()  # a side runs in this folder, not in the current one
    (folder / "run.json").write_text(json.dumps(asdict(options), indent=1, sort_keys=True, default=str))
    for side, tensors in prepared.weights.items():
        contiguous = {key: value.contiguous() for key, value in tensors.items()}
        save_file(contiguous, str(folder / f"{side}.weights.safetensors"))
    save_file(prepared.batch.to_tensors(), str(folder / "inputs.safetensors"))

    progress(f"running the legacy side ({options.family} {options.variant})")
    # made absolute like the folder; not resolved, for a venv's python is a link
    python = os.path.abspath(options.legacy_python) if options.legacy_python else sys.executable
    job = _job(LEGACY, family.adapter, _legacy_options(family, options), options, folder, None)
    run_side(LEGACY, job, folder, python, options.time_limit, isolated=options.legacy_python is not None)
    legacy = Trace.load(folder / LEGACY)
    decisions = None
    if options.replay:
        decisions = folder / "decisions.safetensors"
        write_decisions(legacy, decisions)

    progress(f"running the new side ({options.new_adapter.stem})")
    new_options = {"config": str(configs.path(configs.VARIANTS[options.variant]))}
    job = _job(NEW, options.new_adapter.resolve(), new_options, options, folder, decisions)
    run_side(NEW, job, folder, sys.executable, options.time_limit, isolated=False)
    progress("comparing")
    mapping = families.mapping(options.family, options.variant)
    return judge(legacy, Trace.load(folder / NEW), mapping, EXCLUSIONS[options.family], options.tolerance)


def both_layouts(options: RunOptions) -> dict[str, Mapping[str, Tensor]]:
    """Return the weights in the legacy and in the new layout, from the checkpoint or the seed."""
    mapping = families.mapping(options.family, options.variant)
    targets = {side: layout.load(options.variant, options.family, side) for side in (LEGACY, NEW)}
    if options.checkpoint is None:
        source, side = seeded_weights(targets[LEGACY], options.seed), LEGACY
    else:
        source = checkpoint.read(options.checkpoint).state_dict
        side = detect.detect(source, options.family, options.variant).side
    other = NEW if side == LEGACY else LEGACY
    converted = engine.convert(source, mapping, other, targets[other]).state_dict
    # what the mapping drops (duplicates of a trained checkpoint) is not loaded on the legacy side either
    both = {side: {key: source[key] for key in targets[side].tensors}, other: converted}
    if options.checkpoint is None:
        both = {side: _floating(tensors) for side, tensors in both.items()}
    return both


def _floating(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out counters and index tables: each side has its own, which no seed can replace."""
    return {key: value for key, value in tensors.items() if value.is_floating_point()}


def _num_classes(options: RunOptions) -> int:
    mapping = families.mapping(options.family, options.variant)
    tensors = layout.load(options.variant, options.family, NEW).tensors
    return min(layout.class_counts(tensors, mapping.class_keys))


def _legacy_options(family: legacy_families.LegacyFamily, options: RunOptions) -> dict[str, str]:
    name = configs.VARIANTS[options.variant]
    config = family.configs[options.variant]
    # a legacy config of another name is only the base: ours of this variant is merged into it
    overrides = "" if Path(config).stem == name else str(configs.path(name))
    repo = str(options.legacy_repo.resolve()) if options.legacy_repo else ""
    return {"repo": repo, "config": config, "overrides": overrides}


def _job(
    side: str, adapter: Path, adapter_options: dict[str, str], options: RunOptions, folder: Path, replay: Path | None
) -> Job:
    return Job(
        family=options.family,
        variant=options.variant,
        adapter=str(adapter),
        options=adapter_options,
        weights=str(folder / f"{side}.weights.safetensors"),
        inputs=str(folder / "inputs.safetensors"),
        trace=str(folder / side),
        status=str(folder / f"{side}.status.json"),
        checks=options.checks,
        seed=options.seed,
        threads=options.threads,
        cpu_capability=options.cpu_capability,
        device=options.device,
        replay=str(replay) if replay else None,
    )


def default_threads() -> int:
    """Return torch's own choice for this machine."""
    return torch.get_num_threads()
