"""Run either side of a task, as often as needed, on the same weights and inputs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
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
from converters.rules import class_rows, detect, engine
from converters.rules.layout import Layout
from converters.rules.mapping import Mapping as NameMapping
from converters.rules.ports import Port
from legacy_adapters import registry
from legacy_adapters.inputs import PREDICT, TRAIN
from legacy_adapters.job import Job
from legacy_adapters.launch import describe_side, run_side
from legacy_adapters.numerics.seeding import seed_of
from legacy_adapters.recording.trace_writer import Record, TraceWriter
from legacy_adapters.training.phases import phase_of
from legacy_adapters.training.states import KINDS as STATE_KINDS

from ..comparing.converted import decisions_for_new_side, in_new_form, twin_name
from ..comparing.pairing import LEGACY, NEW, translator
from ..traces.kinds import Kind
from ..traces.trace import Trace, decisions
from . import own_inputs
from .prepare import seeded_batch, seeded_weights
from .prepared import Prepared
from .settings import TWIN, Machine, SettingsError, Sources, Task
from .shared import foreign
from .stopped import recorded_by

DECISIONS = "decisions.safetensors"


def prepare(task: Task, sources: Sources, machine: Machine) -> Prepared:
    """Check the device and make weights and inputs; of a family without stored layouts the models are built for it.

    Raises:
        SettingsError: if the device is not there.
        converters.errors: if the checkpoint cannot be read or does not fit.
        legacy_adapters.launch.RefusedError: if an adapter cannot be used.
        legacy_adapters.launch.SideError: if a model cannot be built.
    """
    check_device(machine)
    port = with_layouts(task.port, sources, machine)
    weights = both_layouts(port, task.seed, sources.checkpoint)
    return Prepared(port, weights, _given(replace(task, port=port), sources))


def _given(task: Task, sources: Sources) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the inputs of both phases: those that a user brings, else made-up ones."""
    family = task.port.family
    if sources.images:
        return own_inputs.of_images(sources.images, sources.image_sizes, family.batch_divisor)
    made = {phase: inputs_of(task, phase) for phase in (PREDICT, TRAIN)}
    return made if sources.inputs is None else own_inputs.of_file(sources.inputs, made, family.inputs is None)


def with_layouts(port: Port, sources: Sources, machine: Machine) -> Port:
    """Return a model whose layouts are known: the stored ones, or those of the models, which are built for it.

    Raises:
        legacy_adapters.launch.RefusedError: if an adapter cannot be used.
        legacy_adapters.launch.SideError: if a model cannot be built.
    """
    if port.has_layouts:
        return port
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made:
        described = {}
        for side, code in ((LEGACY, legacy_code(port, sources)), (NEW, new_code(port, sources))):
            options = Path(made), code.python, machine.time_limit, code.other_python
            described[side] = describe_side(side, code.adapter, code.options, *options, runs=True)
    name = port.variant.title or port.variant.name
    layouts = {side: Layout.from_entries(name, one.layout) for side, one in described.items()}
    return port.with_layouts(layouts, from_both_models=True, classes=described[NEW].classes)


def check_device(machine: Machine) -> None:
    """Refuse a device that is not there.

    Raises:
        SettingsError: if it is not.
    """
    if machine.device.startswith("cuda") and not torch.cuda.is_available():
        raise SettingsError(f"Device {machine.device} is not available to torch here; use --device cpu.")


def inputs_of(task: Task, phase: str) -> Mapping[str, Tensor]:
    """Make the inputs of a phase: of a detector fresh images and objects, of sizes of their own.

    Raises:
        SettingsError: if the family's own inputs are no named tensors.
    """
    seed, family = seed_of(task.seed, f"batch of {phase}"), task.port.family
    if family.inputs is None:
        classes = num_classes(task.port)
        sizes, objects = task.sizes_of(phase), task.objects_of(phase)
        return seeded_batch(sizes, seed, classes, objects, family.batch_divisor).to_tensors()
    made = registry.called(family, "inputs", phase, seed)
    if not isinstance(made, dict) or not made or not all(isinstance(value, Tensor) for value in made.values()):
        raise SettingsError(f"inputs(phase, seed) of family {family.name} must return named tensors, a dict of at least one.")
    return {name: value.detach().contiguous() for name, value in made.items()}


def both_layouts(port: Port, seed: int, checkpoint_file: Path | None) -> dict[str, Mapping[str, Tensor]]:
    """Return the weights in the legacy and in the new layout, from the checkpoint or the seed."""
    mapping, targets = port.mapping, {side: port.layout(side) for side in (LEGACY, NEW)}
    if checkpoint_file is None:
        source, side, originals = seeded_weights(targets[LEGACY], seed, port.seeding), LEGACY, None
    else:
        chosen = parts.given(checkpoint.read(checkpoint_file))
        source, originals = (
            {key: t.to_torch() for key, t in held.items()} for held in (chosen.state_dict, chosen.originals)
        )
        side = detect.detect_among(source, (port,), port.variant.name).side
    other = NEW if side == LEGACY else LEGACY
    if side == LEGACY:
        source = {mapping.current(key): tensor for key, tensor in source.items()}
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


def num_classes(port: Port) -> int:
    """Return how many classes a model tells apart; 1 if nothing says so."""
    if port.classes is not None:
        return port.classes
    return min(class_rows.class_counts(port.layout(NEW).tensors, port.family.class_keys), default=1)


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
        self.task, self.sources, self.machine = replace(task, port=prepared.port), sources, machine
        self.variant_calls = variant_calls
        self.folder = folder.absolute()  # a side runs in this folder, not in the current one
        for side, tensors in prepared.weights.items():
            contiguous = {key: value.contiguous() for key, value in tensors.items()}
            save_file(contiguous, str(self._weights(side)))
        save_file(prepared.inputs(), str(self.folder / "inputs.safetensors"))
        self._own = prepared.given if sources.own_inputs else None
        phases = [phase_of(step, rank) for step in range(1, task.steps + 1) for rank in task.every_rank]
        self._step_inputs = tuple(self._write_step(number, phase) for number, phase in enumerate(phases, 1))

    @property
    def new_title(self) -> str:
        """What the new side is called in messages."""
        return self.sources.new_side(self.task.port.family).title

    def legacy(self, run: str = LEGACY, **changes: Any) -> Trace:
        """Run the legacy side and return its trace ``folder/run``, parameters as the new side has them.

        Args:
            run: name of the run.
            **changes: fields of :class:`Job` that differ from the task's and the machine's.

        Raises:
            legacy_adapters.launch.SideError: if the side crashes or takes too long.
        """
        code, family = legacy_code(self.task.port, self.sources), self.task.port.family
        job = self._job(run, LEGACY, code, changes)
        adapter = self.sources.new_side(family).adapter
        job = replace(job, foreign=foreign(family, adapter, self.sources.legacy_repo))
        run_side(run, job, self.folder, code.python, self.machine.time_limit, code.other_python)
        return in_new_form(Trace.load(self.folder / run), self.task.port.mapping)

    def new(self, run: str = NEW, *, twin: Iterable[Record] = (), **changes: Any) -> Trace:
        """Run the new side; if it crashes while it computes, the trace holds what it recorded until then.

        Args:
            run: as in :meth:`legacy`.
            twin: the legacy side's records; they tell in which order a training sums the norms of gradients.
            **changes: as in :meth:`legacy`.
        """
        mapping = self.task.port.mapping
        names = twin_names(twin, mapping)
        changes["clip_names"] = tuple(names[Kind.SETTING]) if self.task.clip_order == TWIN else ()
        if changes.get("states") is not None and mapping.changes_tensors:
            changes["states"] = str(states_in_new_form(Path(changes["states"]), mapping))
        else:
            changes["state_names"] = {new: legacy for new, legacy in names[Kind.STATE].items() if new != legacy}
        return self._run(run, NEW, new_code(self.task.port, self.sources, self.task.amp), changes)

    def write_decisions(self, bundle: Mapping[str, Tensor]) -> str:
        """Write a decisions bundle for replay by the new side and return its path, a value for the job's ``replay``."""
        path = self.folder / DECISIONS
        save_file(dict(bundle), str(path))
        return str(path)

    def decisions_of(self, legacy: Trace) -> str:
        """Return the path of the decisions of a legacy run for the new side, in its form and under its names."""
        return self.write_decisions(decisions_for_new_side(decisions(legacy), self.task.port.mapping))

    def own_decisions_of(self, legacy: Trace) -> str:
        """Return the path of the decisions of a legacy run for the legacy side, as it took them."""
        path = self.folder / f"{LEGACY}.{DECISIONS}"
        save_file(decisions(Trace.load(legacy.folder)), str(path))
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
        api.convert_file(self.stopped, path, Options(to=side, keep=parts.ALL), port=self.task.port)
        return str(path)

    @contextmanager
    def passing(self, trace: Trace) -> Iterator[Trace]:
        """Give ``trace`` and remove it from the folder afterwards."""
        yield trace
        shutil.rmtree(trace.folder)

    def _write_step(self, number: int, phase: str) -> str:
        path = self.folder / "steps" / f"{number:05d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(dict(self._own[TRAIN] if self._own else inputs_of(self.task, phase)), str(path))
        return str(path)

    def _weights(self, side: str) -> Path:
        return self.folder / f"{side}.weights.safetensors"

    def _run(self, run: str, side: str, code: Code, changes: dict[str, Any]) -> Trace:
        job = self._job(run, side, code, changes)

        def work() -> None:
            run_side(run, job, self.folder, code.python, self.machine.time_limit, code.other_python)

        return recorded_by(work, self.folder / run)

    def _job(self, run: str, side: str, code: Code, changes: dict[str, Any]) -> Job:
        job = Job(
            family=self.task.port.family.name,
            variant=self.task.port.variant.name,
            adapter=str(code.adapter),
            title=code.title,
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
    first, found = None, {Kind.SETTING: {}, Kind.STATE: {}}
    for record in records:
        if record.kind == Kind.SETTING:
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
        title: what its code base is called.
        adapter: its file.
        options: given to the adapter.
        python: interpreter.
        other_python: that is not the current one, so that it gets no ``PYTHONPATH``.
    """

    title: str
    adapter: Path
    options: dict[str, Any]
    python: str
    other_python: bool


def legacy_code(port: Port, sources: Sources) -> Code:
    """Tell what runs the legacy side of a model."""
    options = dict(port.variant.legacy)
    if sources.legacy_repo:
        options["repo"] = str(sources.legacy_repo.resolve())
    # made absolute like the folder; not resolved, for a venv's python is a link
    python = os.path.abspath(sources.legacy_python) if sources.legacy_python else sys.executable
    side = port.family.legacy
    return Code(side.title, side.adapter, options, python, other_python=sources.legacy_python is not None)


def new_code(port: Port, sources: Sources, amp: str | None = None) -> Code:
    """Tell what runs the new side of a model; the adapter is told under which autocast, if any."""
    options = dict(port.variant.new)
    if amp is not None:
        options["amp"] = amp
    side = sources.new_side(port.family)
    return Code(side.title, side.adapter, options, sys.executable, other_python=False)


def default_threads() -> int:
    """Return torch's own choice for this machine."""
    return torch.get_num_threads()
