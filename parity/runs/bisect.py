"""From a run that did not match to a short script that shows the error with one module alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from legacy_adapters.job import Job
from legacy_adapters.recording.extract import ARGUMENTS, CALL
from legacy_adapters.recording.kinds import RESULT
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.recording.values import joined

from ..comparing.compare import DERIVED, FIXED, Comparison
from ..comparing.converted import in_new_form
from ..comparing.evidence import TraceEvidence, load_spread
from ..comparing.pairing import LEGACY, NEW
from ..decisions.kinds import is_draw
from ..sides.places import OF_MODEL
from ..traces.kinds import GRADIENTS, Kind
from ..traces.trace import Trace
from ..verdict.isolation import Culprit
from ..verdict.verdict import MISMATCH, Verdict, ended, judge
from . import reproducer
from .isolate import FLOAT64, ISOLATED, SPREAD, Progress, RunFolder, is_isolable, isolate
from .reproducer import Reproducer

INPUTS, GIVEN_GRADIENTS = "inputs.safetensors", "gradients.safetensors"
MOST_GRADIENTS = 20
MAY_HAVE_CHANGED = "Nothing differs in isolation: the new side's code may have changed since the run, make it again."
#: A call of a module: phase, path, number.
Call = tuple[str, str, int]


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Attributes:
        verdict: with isolation.
        place: the first that computes something else by itself; None if none does.
        script: reproduces it; None if there is nothing to reproduce.
    """

    verdict: Verdict
    place: Culprit | None
    script: Path | None


def bisect(kept: RunFolder, out: Path, progress: Progress) -> Bisection:
    """Run the new side in isolation in the folder of a kept run, and write a script that shows the first error.

    Args:
        kept: of ``ddq-parity run --out``.
        out: for the script and its files; must exist and be empty.
        progress: is told each step.

    Raises:
        parity.sides.settings.SettingsError: if the run holds nothing but a training.
        TraceError: if the folder lacks something.
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    kept.isolable(NEW)  # before all is compared
    verdict = told_if_changed(isolate(kept, _ordinary(kept), progress))
    found = verdict.isolation.culprits if verdict.isolation is not None else ()
    if not found or found[0].record.kind == Kind.PARAM:
        return Bisection(verdict, found[0] if found else None, None)
    progress("writing a script that shows it")
    return Bisection(verdict, found[0], _reproduced(kept, verdict, found[0], out))


def told_if_changed(verdict: Verdict) -> Verdict:
    """Add that the new side's code may have changed if what mismatched in the kept run is not found in isolation."""
    isolation = verdict.isolation
    if isolation is None or isolation.culprits or isolation.reasons or verdict.outcome != MISMATCH:
        return verdict
    if all(c.accepted or not is_isolable(c.pair.legacy.phase) for c in verdict.comparisons):
        return verdict  # only what is not isolated differs
    return replace(verdict, reasons=(*verdict.reasons, MAY_HAVE_CHANGED))


def _ordinary(kept: RunFolder) -> Verdict:
    mapping, new, evidence = kept.port.mapping, Trace.load(kept.folder / NEW), None
    legacy = in_new_form(Trace.load(kept.folder / LEGACY), mapping)
    if kept.tolerance.name == DERIVED:
        reference, new_reference = (Trace.load(kept.folder / (side + FLOAT64)) for side in (LEGACY, NEW))
        spread = load_spread(kept.folder / SPREAD)
        evidence = TraceEvidence(legacy, in_new_form(reference, mapping), spread, new, new_reference, mapping.paddings)
    return ended(judge(legacy, new, mapping, kept.exclusions, kept.tolerance, evidence))


def _reproduced(kept: RunFolder, verdict: Verdict, place: Culprit, out: Path) -> Path | None:
    """Write a script of the module alone or, if that does not show the error, of the model."""
    finding = place.alone.finding if place.alone is not None else None
    # what only float64 shows is reproduced in float64
    suffix = FLOAT64 if finding is not None and " in float64" in finding.objection else ""
    legacy, isolated = (Trace.load(kept.folder / (name + suffix)) for name in (LEGACY, ISOLATED))
    legacy = in_new_form(legacy, kept.port.mapping)
    source = _Source(verdict, place, kept.job(ISOLATED + suffix), legacy)
    call = enclosing_call(place.record, isolated.records)
    spec = _extracted(kept, suffix, call, out) if call is not None else None
    if call is not None and spec is not None:
        script = reproducer.write(_of_module(source, call, spec, out), out)
        if reproducer.shows(script):
            return script
        for path in out.iterdir():
            path.unlink()
    script = reproducer.write(_of_model(source, out), out)
    return script if reproducer.shows(script) else None


def enclosing_call(record: Record, records: Sequence[Record]) -> Call | None:
    """Return the module call that computes ``record`` by itself; None if that is the model's own code.

    None as well if random draws are made inside the call, because alone it would draw others.

    Args:
        record: the first that differs in an isolated run.
        records: of that run, in recording order.
    """
    phase = record.phase
    if record.kind in (Kind.MODULE_OUT, Kind.IN_GRAD):
        found: Call | None = (phase, record.name, record.call)
    elif record.kind in (Kind.MODULE_IN, Kind.BASIS, Kind.TAP, Kind.OUT_GRAD):
        found = _running(record, records)
    else:
        found = None
    if found is None or _draws(found, records):
        return None
    return found


def _running(record: Record, records: Sequence[Record]) -> Call | None:
    """Return the call of the module ``record.scope`` that was running when the recorded thing came about."""
    if record.kind == Kind.OUT_GRAD:
        until = (record.phase, Kind.MODULE_OUT, record.name, record.call)
    else:
        until = record.key[:4]
    running: Call | None = None
    for other in records:
        if other.key[:4] == until:
            return running
        if (other.phase, other.name) == (record.phase, record.scope):
            if other.kind == Kind.MODULE_IN:
                running = (other.phase, other.name, other.call)
            elif other.kind == Kind.MODULE_OUT:
                running = None
    return None


def _draws(call: Call, records: Sequence[Record]) -> bool:
    inside = False
    for record in records:
        if (record.phase, record.name, record.call) == call:
            if record.kind == Kind.MODULE_OUT:
                return False
            inside = inside or record.kind == Kind.MODULE_IN
        elif inside and is_draw(record):
            return True
    return False


def _extracted(kept: RunFolder, suffix: str, call: Call, out: Path) -> dict[str, Any] | None:
    """Save the call's arguments into ``out`` and return how they are written down; None if that cannot be done."""
    target = dict(phase=call[0], name=call[1], call=call[2], folder=str(out))
    with tempfile.TemporaryDirectory(dir=kept.folder) as trace:
        kept.run_new(f"{Path(trace).name}/extracted", ISOLATED + suffix, called="argument-saving", target=target)
    spec = json.loads((out / CALL).read_text(encoding="utf-8"))
    (out / CALL).unlink()
    if not spec["opaque"]:
        return spec
    (out / ARGUMENTS).unlink()
    return None


@dataclass(frozen=True)
class _Source:
    """What a script is made from."""

    verdict: Verdict
    place: Culprit
    job: Job
    legacy: Trace

    def weights(self, modules: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return the weights of some modules, or all, by their full names."""
        prefixes = ("",) if modules is None else tuple(f"{name}." for name in modules)
        return {key: value for key, value in load_file(self.job.weights).items() if key.startswith(prefixes)}

    def told(self) -> str:
        """Say what differs, against what."""
        sides = (self.verdict.provenance[side] for side in (LEGACY, NEW))
        legacy, new = (" ".join(str(p[k]) for k in ("code_base", "commit") if k in p) for p in sides)
        return f"{self.place.message}\n{new} against {legacy}, {self.job.variant}."

    def allowed(self, comparison: Comparison) -> float:
        """Return the largest difference that the run's tolerance accepts."""
        tolerance, finding = self.verdict.tolerance, comparison.finding
        if finding is not None:
            return (finding.allowed64 if self.job.dtype == "float64" else finding.allowed).max
        if tolerance.name == FIXED:
            size = self.legacy.tensor(comparison.pair.legacy).double().abs()
            return tolerance.atol + tolerance.rtol * (size.max().item() if size.numel() else 0.0)
        return 0.0

    def expected(self, comparisons: Iterable[Comparison], slots: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return ``expected`` and ``allowed`` of a reproducer, under ``slots``."""
        pairs = list(zip(slots, comparisons))
        by_key = self.legacy.by_key
        return dict(
            expected={slot: self.legacy.tensor(by_key[c.pair.legacy.key]) for slot, c in pairs},
            allowed={slot: self.allowed(c) for slot, c in pairs},
        )


def _of_module(source: _Source, call: Call, spec: dict[str, Any], out: Path) -> Reproducer:
    """Make the script of one call; it needs the arguments in ``out``."""
    phase, name, number = call
    record = source.place.record
    comparisons = source.verdict.isolation.comparisons if source.verdict.isolation else ()
    of_call = [c for c in comparisons if (c.pair.new.phase, c.pair.new.name, c.pair.new.call) == call]
    shown = [c for c in of_call if c.pair.new.kind == Kind.MODULE_OUT]
    arguments = ", ".join(f"{key}={value}" for key, value in spec["arguments"].items())
    prepare = [f't = {{key: value.to(device) for key, value in load_file(here / "{ARGUMENTS}").items()}}']
    result = _under_autocast(source.job, f"model.get_submodule({name!r})({arguments})")
    if record.kind in GRADIENTS:
        given = load_file(out / ARGUMENTS)
        shown = [c for c in of_call if c.pair.new.kind == Kind.IN_GRAD and c.pair.new.slot in given]
        flows = [c.pair.legacy for c in of_call if c.pair.new.kind == Kind.OUT_GRAD]
        save_file({f"slot {r.slot}": source.legacy.tensor(r).clone() for r in flows}, str(out / GIVEN_GRADIENTS))
        prepare += [
            f"leaves = {{slot: t[slot].requires_grad_() for slot in {[c.pair.new.slot for c in shown]!r}}}",
            "t.update({slot: leaf.clone() for slot, leaf in leaves.items()})",
            f"result = dict(flatten({result}))",
            f'flow = {{key[5:]: value.to(device) for key, value in load_file(here / "{GIVEN_GRADIENTS}").items()}}',
            "torch.autograd.backward([result[slot] for slot in flow], list(flow.values()))",
        ]
        result = "{slot: leaf.grad for slot, leaf in leaves.items()}"
    return Reproducer(
        title=f"{name} alone: call {number} of the {phase} phase, given what its twin was given.",
        told=source.told(),
        job=source.job,
        training=phase == "train",
        prepare=tuple(prepare),
        call=result,
        weights=source.weights([name, *spec["modules"]]),
        **source.expected(shown, (c.pair.new.slot for c in shown)),
    )


def _under_autocast(job: Job, expression: str) -> str:
    """Return a Python expression that is computed under the autocast of a job, if it has one; backward is not."""
    return expression if job.amp is None else f"autocast(lambda: {expression})"


def _of_model(source: _Source, out: Path) -> Reproducer:
    """Make the script of the whole model on the inputs of the run."""
    record, job = source.place.record, source.job
    shutil.copyfile(job.inputs, out / INPUTS)
    prepare = [
        "from legacy_adapters.inputs import of_phase, placed",
        "from legacy_adapters.numerics.seeding import seed_all\n",
        f'inputs = of_phase(load_file(here / "{INPUTS}"), {record.phase!r})',
        f"batch = adapter.batch(placed(inputs, device, torch.{job.dtype}))",
        f"seed_all({job.seed}, {record.phase!r})",
    ]
    everything, losses = source.verdict.comparisons, _under_autocast(job, "adapter.losses(model, batch)")
    if record.phase == "predict":
        results = [c for c in everything if c.pair.new.kind == Kind.TAP and c.pair.new.name == RESULT]
        shown = [c for c in results if c.pair.new.phase == record.phase]
        slots = [joined(str(c.pair.new.call), c.pair.new.slot) for c in shown]
        result = _under_autocast(job, "adapter.results(adapter.predict(model, batch))")
    elif record.kind in GRADIENTS or record.kind == Kind.STATE:
        shown = [c for c in everything if c.pair.new.kind == Kind.GRAD and not c.accepted][:MOST_GRADIENTS]
        slots = [c.pair.new.name for c in shown]
        prepare.append(f"{losses}[1].backward()")
        result = "{name: p.grad for name, p in model.named_parameters() if p.grad is not None}"
    else:
        shown = [c for c in everything if c.pair.new.kind == Kind.LOSS and c.pair.new.name != "total"]
        slots = [f"{c.pair.new.name}.{c.pair.new.slot}".rstrip(".") for c in shown]
        result = f"{losses}[0]"
    return Reproducer(
        title=f"{OF_MODEL} on the inputs of the run, {record.phase} phase.",
        told=source.told(),
        job=job,
        training=record.phase == "train",
        prepare=tuple(prepare),
        call=result,
        weights=source.weights(),
        **source.expected(shown, slots),
    )
