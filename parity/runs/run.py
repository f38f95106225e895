"""Run both sides of a family on the same weights and inputs and judge what they computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from legacy_adapters.family import Family
from legacy_adapters.launch import SideError
from legacy_adapters.recording.trace_writer import Key
from legacy_adapters.tasks.initialising import without_init

from ..comparing.compare import DERIVED, Tolerance
from ..comparing.evidence import Norms, TraceEvidence, ValuesOf, save_spread, spreads, whole
from ..comparing.padding import Images, PlacesOf
from ..comparing.pairing import LEGACY, NEW
from ..sides.prepared import Prepared
from ..sides.settings import RunOptions, Sources, Task
from ..sides.sides import Sides, prepare
from ..traces.kinds import Kind
from ..traces.trace import Trace, TraceError
from ..verdict import degenerate
from ..verdict.outcome import INCOMPARABLE, MISMATCH
from ..verdict.verdict import Verdict, ended, judge
from .autocast import unable
from .isolate import FLOAT64, SPREAD, Progress, RunFolder, isolate

#: Runs of the legacy side whose errors make its spread, beside the first: other threads, other CPU kernels, weights
#: and images perturbed in their last bit.
REPEATS = (
    dict(threads=1),
    dict(cpu_capability="default"),
    dict(perturb=1),
    dict(perturb=2),
    dict(perturb=3),
)

#: How many seeds are tried in a run under derived tolerance.
MOST_SEEDS = 4


def check_legacy(family: Family, sources: Sources) -> None:
    """Refuse sources from which the legacy side cannot be run, or of no known commit where one is asked for.

    Raises:
        legacy_adapters.family.RepoError: if the legacy repo is not one, or is not as published.
    """
    family.check_repo(sources.legacy_repo, sources.legacy_python)
    if sources.require_known_commit:
        family.check_known(sources.legacy_repo, sources.legacy_python)


def run(options: RunOptions, prepared: Prepared, folder: Path, progress: Progress) -> Verdict:
    """Run both sides in ``folder``, which must exist and be empty, and judge.

    Some weights and inputs are so badly conditioned that the legacy side's own rounding could hide an error. They are
    ours to choose: then both sides are run again under the next seed, up to :data:`MOST_SEEDS` in all.

    Leaves there: the options, weights and inputs of both sides, ``legacy`` and ``new`` traces, their logs and, with
    ``replay``, ``isolate`` or a derived tolerance, the decisions bundle and the further traces these need.

    Args:
        options: what to do.
        prepared: of the same options.
        folder: for everything that is written.
        progress: is told each step.

    Raises:
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    verdict, before = _run(options, prepared, folder, progress), []
    while verdict.is_too_loose and len(before) < MOST_SEEDS - 1:
        before.append(options.task.seed)
        task = next_seed(options.task, folder, "rounding is too large for a verdict", progress)
        options = replace(options, task=task)
        verdict = _run(options, prepare(task, options.sources, options.machine), folder, progress)
    return replace(verdict, seeds_before=tuple(before))


def next_seed(task: Task, folder: Path, why: str, progress: Progress) -> Task:
    """Return the task under its next seed, with nothing left in ``folder`` of its runs under the last one."""
    new = replace(task, seed=(task.seed + 1) % 2**63)
    progress(f"{why} under seed {task.seed}, trying seed {new.seed}")
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return new


def _run(options: RunOptions, prepared: Prepared, folder: Path, progress: Progress) -> Verdict:
    (folder / "run.json").write_text(json.dumps(options.as_dict(), indent=1, sort_keys=True, default=str))
    task, derived = options.task, options.tolerance.name == DERIVED
    sides = Sides(task, options.sources, options.machine, prepared, folder)
    progress(f"running the legacy side ({task.port})")
    try:
        legacy = sides.legacy(dtype=options.dtype, checkpoint_to=sides.stopped)
    except SideError:
        verdict = _degenerate(sides, options, progress)
        if verdict is None and task.amp is not None:
            verdict = _unable(sides, options, prepared, progress)
        if verdict is None:
            raise
        return verdict
    bundle = sides.decisions_of(legacy) if options.replay or derived else None
    states = str(legacy.folder) if derived and task.steps else None
    measured = measure_legacy(sides, legacy, progress, states=states) if derived else None
    flow = legacy.provenance.get("gradient_flow", False)
    resumed = sides.resumed(NEW)
    given = dict(replay=bundle, gradient_flow=flow, states=states, twin=legacy.records, checkpoint_from=resumed)
    progress(f"running the new side ({sides.new_title})")
    new = sides.new(dtype=options.dtype, beside=str(legacy.folder), **given)
    evidence = None
    if measured is not None:
        save_spread(measured.spread, folder / SPREAD)
        progress("running the new side in float64")
        given |= dict(dtype="float64", amp=None, decide=False, checks=without_init(task.checks))
        again = sides.new(NEW + FLOAT64, beside=str(measured.reference.folder), **given)
        evidence = TraceEvidence(legacy, measured.reference, measured.spread, new, again, task.port.mapping.paddings)
    progress("comparing")
    verdict = ended(judge(legacy, new, task.port.mapping, options.excluded, options.tolerance, evidence))
    if options.isolate:
        verdict = isolate(RunFolder.load(folder), verdict, progress)
    return verdict


def _degenerate(sides: Sides, options: RunOptions, progress: Progress) -> Verdict | None:
    """Judge a run whose legacy side crashed on constants or NaN that it had computed; None if it did not do that."""
    try:
        legacy = Trace.load(sides.folder / LEGACY)
    except TraceError:
        return None
    if not degenerate.reasons(legacy, legacy):
        return None
    progress(f"running the new side ({sides.new_title})")
    new = sides.new(dtype=options.dtype, gradient_flow=legacy.provenance.get("gradient_flow", False))
    return judge(legacy, new, options.task.port.mapping, options.excluded, Tolerance())


def _unable(sides: Sides, options: RunOptions, prepared: Prepared, progress: Progress) -> Verdict | None:
    """Judge a run whose legacy side crashed because of autocast, by what it did before; None if that was not why."""
    found = unable(sides, progress)
    if found is None:
        return None
    if found.compared:
        task = replace(options.task, checks=found.compared)
        verdict = _run(replace(options, task=task), prepared, sides.folder, progress)
        reasons = (found.message, *verdict.reasons)
    else:
        verdict, reasons = _of_weights(sides, options), (found.message,)
    outcome = MISMATCH if verdict.outcome == MISMATCH else INCOMPARABLE
    return replace(verdict, outcome=outcome, reasons=reasons, autocast_failure=found)


def _of_weights(sides: Sides, options: RunOptions) -> Verdict:
    """Judge two sides of which one did nothing but load its weights."""
    legacy, new = (
        replace(trace, records=tuple(record for record in trace.records if record.kind == Kind.PARAM))
        for trace in (Trace.load(sides.folder / side) for side in (LEGACY, NEW))
    )
    return judge(legacy, new, options.task.port.mapping, options.excluded, Tolerance())


@dataclass(frozen=True)
class Measured:
    """The legacy side's rounding.

    Attributes:
        reference: its trace in float64.
        spread: its error against that, per float record.
    """

    reference: Trace
    spread: dict[Key, Norms]


def measure_legacy(
    sides: Sides, legacy: Trace, progress: Progress, values: ValuesOf = whole, places_of: PlacesOf | None = None,
    states: str | None = None,
) -> Measured:  # fmt: skip
    """Run the legacy side again, in float64 and with :data:`REPEATS`, under the decisions of its first run.

    With ``states``, a trace's folder, every step of a training starts from the state recorded there: errors that grow
    from step to step would measure the chaos of training, not the rounding of a step. With other ``values`` than whole
    tensors, ``places_of`` tells which of these are of images.
    """
    progress("running the legacy side in float64")
    given = dict(
        replay=sides.own_decisions_of(legacy), states=states, checkpoint_from=sides.resumed(LEGACY),
        checks=without_init(sides.task.checks),
    )  # fmt: skip
    reference = sides.legacy(LEGACY + FLOAT64, dtype="float64", amp=None, decide=False, **given)

    def runs() -> Iterator[Trace]:
        yield legacy
        for number, changes in enumerate(REPEATS, 1):
            progress(f"measuring the rounding of the legacy side, run {number} of {len(REPEATS)}")
            with sides.passing(sides.legacy(f"repeat{number}", **given, **changes)) as trace:
                yield trace

    places_of = places_of or Images(reference, sides.task.port.mapping.paddings).places
    return Measured(reference, spreads(runs(), reference, values, places_of))
