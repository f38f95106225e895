"""Run either side of a task, as often as needed, on the same weights and inputs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from converters import api
from converters.carrying import parts
from converters.options import Options
from converters.reading import checkpoint
from converters.rules import detect, engine, families, layout
from converters.rules.mapping import Mapping as NameMapping
from ddq_port import configs
from legacy_adapters import families as legacy_families
from legacy_adapters.inputs import PREDICT, TRAIN, Batch
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side
from legacy_adapters.phases import phase_of
from legacy_adapters.seeding import seed_of
from legacy_adapters.states import KINDS as STATE_KINDS
from legacy_adapters.trace_writer import Record, TraceWriter

from ..comparing.converted import in_new_form, twin_name
from ..comparing.pairing import LEGACY, NEW, translator
from ..traces.trace import Trace
from .prepare import seeded_batch, seeded_weights
from .settings import TWIN, Machine, SettingsError, Sources, Task
from .shared import foreign
from .stopped import recorded_by

DECISIONS = "decisions.safetensors"


@dataclass(frozen=True)
class Prepared:
    """What both sides are given.

    Attributes:
        weights: state dict of each side.
        batch: images and objects for inference.
        train_batch: those for losses and gradients.
    """

    weights: dict[str, Mapping[str, Tensor]]
    batch: Batch
    train_batch: Batch

    def inputs(self) -> dict[str, Tensor]:
        """Return both batches as named tensors, for one file."""
        batches = ((PREDICT, self.batch), (TRAIN, self.train_batch))
        return {f"{phase}.{name}": value for phase, batch in batches for name, value in batch.to_tensors().items()}


def prepare(task: Task, sources: Sources, machine: Machine) -> Prepared:
    """Check the device and make weights and inputs; nothing is written.

    Raises:
        SettingsError: if the device is not there.
        converters.errors: if the checkpoint cannot be read or does not fit.
    """
    check_device(machine)
    weights = both_layouts(task.family, task.variant, task.seed, sources.checkpoint)
    return Prepared(weights, batch_of(task, PREDICT), batch_of(task, TRAIN))


def check_device(machine: Machine) -> None:
    """Refuse a device that is not there.

    Raises:
        SettingsError: if it is not.
    """
    if machine.device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"Device {machine.device} is not available to torch here; use --device cpu.")


def batch_of(task: Task, phase: str) -> Batch:
    """Make the batch of a phase: fresh images and objects, of sizes of its own."""
    seed = seed_of(task.seed, f"batch of {phase}")
    return seeded_batch(task.sizes_of(phase), seed, num_classes(task.family, task.variant), task.objects_of(phase))


def both_layouts(family: str, variant: str, seed: int, checkpoint_file: Path | None) -> dict[str, Mapping[str, Tensor]]:
    """Return the weights in the legacy and in the new layout, from the checkpoint or the seed."""
    mapping = families.mapping(family, variant)
    targets = {side: layout.load(variant, family, side) for side in (LEGACY, NEW)}
    if checkpoint_file is None:
        source, side, originals = seeded_weights(targets[LEGACY], seed), LEGACY, None
    else:
        chosen = parts.given(checkpoint.read(checkpoint_file))
        source, originals = (
            {key: t.to_torch() for key, t in held.items()} for held in (chosen.state_dict, chosen.originals)
        )
        side = detect.detect(source, family, variant).side
    other = NEW if side == LEGACY else LEGACY
    if checkpoint_file is None:
        source = engine.with_known_rests(source, mapping)
    converted = engine.convert(source, mapping, other, targets[other], originals=originals).state_dict
    # what the mapping drops (duplicates of a trained checkpoint) is not loaded on the legacy side either
    both = {side: {key: source[key] for key in targets[side].tensors}, other: converted}
    if checkpoint_file is None:
        both = {side: _floating(tensors) for side, tensors in both.items()}
    return both


def _floating(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out counters and index tables: each side has its own, which no seed can replace."""
    return {key: value for key, value in tensors.items() if value.is_floating_point()}


def num_classes(family: str, variant: str) -> int:
    """Return how many classes a variant tells apart."""
    mapping = families.mapping(family, variant)
    tensors = layout.load(variant, family, NEW).tensors
    return min(layout.class_counts(tensors, mapping.class_keys))


class Sides:
    """Both sides of one task in one folder: weights, inputs, and for every run a job file, a log and a trace.

    Args:
        task: what to compute.
        sources: code.
        machine: where.
        prepared: of these three.
        folder: must exist.
        variant_calls: as in :class:`Job`.
    """

    def __init__(
        self, task: Task, sources: Sources, machine: Machine, prepared: Prepared, folder: Path,
        variant_calls: bool = True,
    ) -> None:  # fmt: skip
        self.task, self.sources, self.machine, self.variant_calls = task, sources, machine, variant_calls
        self.folder = folder.absolute()  # a side runs in this folder, not in the current one
        for side, tensors in prepared.weights.items():
            contiguous = {key: value.contiguous() for key, value in tensors.items()}
            save_file(contiguous, str(self._weights(side)))
        save_file(prepared.inputs(), str(self.folder / "inputs.safetensors"))
        phases = [phase_of(step, rank) for step in range(1, task.steps + 1) for rank in task.every_rank]
        self._step_inputs = tuple(self._write_step(number, phase) for number, phase in enumerate(phases, 1))

    def legacy(self, run: str = LEGACY, **changes: Any) -> Trace:
        """Run the legacy side and return its trace ``folder/run``, parameters as the new side has them.

        Args:
            run: name of the run.
            **changes: fields of :class:`Job` that differ from the task's and the machine's.

        Raises:
            legacy_adapters.launch.SideError: if the side crashes or takes too long.
        """
        code = legacy_code(self.task.family, self.task.variant, self.sources)
        job = self._job(run, LEGACY, code, changes)
        job = replace(job, foreign=foreign(self.sources.new_adapter, self.sources.legacy_repo))
        run_side(run, job, self.folder, code.python, self.machine.time_limit, code.apart)
        return in_new_form(Trace.load(self.folder / run), families.mapping(self.task.family, self.task.variant))

    def new(self, run: str = NEW, *, twin: Iterable[Record] = (), **changes: Any) -> Trace:
        """Run the new side; if it crashes while it computes, the trace holds what it recorded until then.

        Args:
            run: as in :meth:`legacy`.
            twin: the legacy side's records; they tell in which order a training sums the norms of gradients.
            **changes: as in :meth:`legacy`.
        """
        mapping = families.mapping(self.task.family, self.task.variant)
        names = twin_names(twin, mapping)
        changes["clip_names"] = tuple(names["setting"]) if self.task.clip_order == TWIN else ()
        if changes.get("states") is not None and mapping.changes_tensors:
            changes["states"] = str(states_in_new_form(Path(changes["states"]), mapping))
        else:
            changes["state_names"] = {new: legacy for new, legacy in names["state"].items() if new != legacy}
        return self._run(run, NEW, new_code(self.task.variant, self.sources, self.task.amp), changes)

    def write_decisions(self, bundle: Mapping[str, Tensor]) -> str:
        """Write a decisions bundle for replay and return its path, a value for the job's field ``replay``."""
        path = self.folder / DECISIONS
        save_file(dict(bundle), str(path))
        return str(path)

    @property
    def stopped(self) -> str | None:
        """Name the file for the checkpoint of a legacy training that is stopped; None if none is."""
        return str(self.folder / "stopped.pth") if self.task.resume_at else None

    def resumed(self, side: str) -> str | None:
        """Convert that checkpoint for a side, as ``ddq-convert`` does, and name the file; None if none is written.

        For the legacy side as well: mmengine saves objects that torch from 2.6 on refuses to load.

        Raises:
            converters.errors: if it cannot be converted.
        """
        if self.stopped is None:
            return None
        path = self.folder / f"resumed.{side}.pth"
        options = Options(to=side, family=self.task.family, variant=self.task.variant, keep=parts.ALL)
        api.convert_file(self.stopped, path, options)
        return str(path)

    @contextmanager
    def passing(self, trace: Trace) -> Iterator[Trace]:
        """Give ``trace`` and remove it from the folder afterwards."""
        yield trace
        shutil.rmtree(trace.folder)

    def _write_step(self, number: int, phase: str) -> str:
        path = self.folder / "steps" / f"{number:05d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(batch_of(self.task, phase).to_tensors(), str(path))
        return str(path)

    def _weights(self, side: str) -> Path:
        return self.folder / f"{side}.weights.safetensors"

    def _run(self, run: str, side: str, code: Code, changes: dict[str, Any]) -> Trace:
        job = self._job(run, side, code, changes)

        def work() -> None:
            run_side(run, job, self.folder, code.python, self.machine.time_limit, code.apart)

        return recorded_by(work, self.folder / run)

    def _job(self, run: str, side: str, code: Code, changes: dict[str, Any]) -> Job:
        job = Job(
            family=self.task.family,
            variant=self.task.variant,
            adapter=str(code.adapter),
            options=code.options,
            weights=str(self._weights(side)),
            inputs=str(self.folder / "inputs.safetensors"),
            trace=str(self.folder / run),
            status=str(self.folder / f"{run}.status.json"),
            checks=self.task.checks,
            seed=self.task.seed,
            threads=self.machine.threads,
            cpu_capability=self.machine.cpu_capability,
            device=self.machine.device,
            amp=self.task.amp,
            step_inputs=self._step_inputs,
            epoch_length=self.task.epoch_length,
            clip_order=self.task.clip_order,
            resume_at=self.task.resume_at,
            ranks=self.task.ranks,
            patience=self.machine.time_limit / 3,
            variant_calls=self.variant_calls,
        )
        return replace(job, **changes)


def states_in_new_form(folder: Path, mapping: NameMapping) -> Path:
    """Write what every step of a legacy training left as the new side has it, beside its trace, and name that folder.

    Weights and states of the optimizer have the names and shapes of the new side's, so a step can start from them.
    """
    path = folder.with_name(f"{folder.name}.states")
    if not path.exists():
        legacy, name_of = in_new_form(Trace.load(folder), mapping), translator(mapping)
        writer = TraceWriter(str(path), beside=str(folder))
        for record in (record for record in legacy.records if record.kind in STATE_KINDS):
            writer.add(record.phase, record.kind, name_of(record), record.call, record.slot, legacy.tensor(record))
        writer.finish(provenance=legacy.provenance, coverage={})
    return path


def twin_names(records: Iterable[Record], mapping: NameMapping) -> dict[str, dict[str, str]]:
    """Return new name -> legacy name of what the first recorded training step of the legacy side left.

    The records are of :func:`.converted.in_new_form`; one that has no twin in that form is passed over.

    Under ``setting`` stand the parameters in the order of its optimizer, under ``state`` all weights and buffers.
    """
    first, found = None, {"setting": {}, "state": {}}
    for record in records:
        if record.kind == "setting":
            first = first or record.phase
        if record.phase == first and record.kind in found and first is not None:
            name = twin_name(record, mapping)
            if name is not None:
                found[record.kind][name] = record.name
    return found


@dataclass(frozen=True)
class Code:
    """What runs a side.

    Attributes:
        adapter: its file.
        options: given to the adapter.
        python: interpreter.
        apart: that is not the current one, so that it gets no ``PYTHONPATH``.
    """

    adapter: Path
    options: dict[str, Any]
    python: str
    apart: bool


def legacy_code(family_name: str, variant: str, sources: Sources) -> Code:
    """Tell what runs the legacy side of a variant."""
    family = legacy_families.get(family_name)
    name = configs.VARIANTS[variant]
    config = family.configs[variant]
    # a legacy config of another name is only the base: ours of this variant is merged into it
    overrides = "" if Path(config).stem == name else str(configs.path(name))
    repo = str(sources.legacy_repo.resolve()) if sources.legacy_repo else ""
    # made absolute like the folder; not resolved, for a venv's python is a link
    python = os.path.abspath(sources.legacy_python) if sources.legacy_python else sys.executable
    options = {"repo": repo, "config": config, "overrides": overrides}
    return Code(family.adapter, options, python, apart=sources.legacy_python is not None)


def new_code(variant: str, sources: Sources, amp: str | None = None) -> Code:
    """Tell what runs the new side of a variant; the adapter is told under which autocast, if any."""
    options = {"config": str(configs.path(configs.VARIANTS[variant]))}
    if amp is not None:
        options["amp"] = amp
    return Code(sources.new_adapter.resolve(), options, sys.executable, apart=False)


def default_threads() -> int:
    """Return torch's own choice for this machine."""
    return torch.get_num_threads()
