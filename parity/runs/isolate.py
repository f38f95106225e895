"""Run the new side in isolation, in the folder of a run that was made before."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from converters.rules.mapping import Mapping
from converters.rules.ports import Port
from legacy_adapters.family import Exclusion, FamilyError
from legacy_adapters.inputs import PREDICT, TRAIN
from legacy_adapters.job import Job
from legacy_adapters.launch import run_side
from legacy_adapters.tasks import made_up, probes
from legacy_adapters.tasks.initialising import INIT

from ..comparing.compare import DERIVED, EXACT, Tolerance
from ..comparing.converted import decisions_for_new_side, in_new_form
from ..comparing.evidence import TraceEvidence, likeness_of, load_spread
from ..comparing.forms import PERMUTED, SELECTED
from ..comparing.pairing import LEGACY, NEW, pair
from ..sides.settings import SettingsError, Task
from ..sides.sides import DECISIONS
from ..sides.stopped import recorded_by
from ..traces.kinds import Kind
from ..traces.trace import Trace, TraceError, decisions
from ..verdict.counterparts import Counterparts
from ..verdict.diagnosing import explanation_of_pair
from ..verdict.isolation import write_forcing
from ..verdict.verdict import MATCH, Verdict, ended, judge, with_isolation

Progress = Callable[[str], None]

#: Checks in which no module runs that could be given its twin's inputs.
_NOT_ISOLATED = ("train", INIT)
_PHASES = ("weights", PREDICT, TRAIN, made_up.PHASE, probes.PHASE)
ISOLATED, FLOAT64 = "isolated", "64"
SPREAD = "spread.json"
#: Places of an isolated run whose differences are looked into.
_MOST_EXPLAINED = 10


@dataclass(frozen=True)
class RunFolder:
    """What ``run`` leaves in a folder.

    Attributes:
        folder: where.
        tolerance: of the run.
        time_limit: seconds for each process.
        port: the model.
        exclusions: of the family and of the run.
    """

    folder: Path
    tolerance: Tolerance
    time_limit: float
    port: Port
    exclusions: tuple[Exclusion, ...]

    @classmethod
    def load(cls, folder: Path) -> RunFolder:
        """Read the options of a kept run.

        Raises:
            TraceError: if the folder holds none.
        """
        try:
            options = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            tolerance, limit = Tolerance(**options["tolerance"]), float(options["machine"]["time_limit"])
            port = Task.from_dict(options["task"]).port
            exclusions = tuple(Exclusion(**item) for item in options["exclusions"])
        except FileNotFoundError:
            raise TraceError(f"{folder} holds no run; make one with `ddq-parity run ... --out {folder}`.") from None
        except (FamilyError, SettingsError) as error:
            raise TraceError(f"{folder}/run.json names what is not there: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"{folder}/run.json is not of `ddq-parity run`: {type(error).__name__} {error}."
            raise TraceError(message) from error
        return cls(folder.absolute(), tolerance, limit, port, (*port.exclusions, *exclusions))

    def job(self, run: str) -> Job:
        """Return the job of a run of the new side that was made here.

        Raises:
            TraceError: if it is not here.
        """
        path = self.folder / f"{run}.job.json"
        if not path.is_file():
            raise TraceError(f"{self.folder} has no {path.name}; make the run again with `ddq-parity run ... --out`.")
        # the folder may have been moved
        weights, inputs = self.folder / f"{NEW}.weights.safetensors", self.folder / "inputs.safetensors"
        job = Job.load(str(path))
        beside = None if job.beside is None else str(self.folder / Path(job.beside).name)
        return replace(job, weights=str(weights), inputs=str(inputs), beside=beside)

    def isolable(self, run: str) -> tuple[str, ...]:
        """Return the checks of ``run`` that can be isolated: all but the steps of a training and ``init``.

        Raises:
            SettingsError: if there are none.
            TraceError: if there is no such run.
        """
        made = self.job(run).checks
        checks = tuple(check for check in made if check not in _NOT_ISOLATED)
        if not checks:
            only = f"check{'s' * (len(made) > 1)} {' and '.join(made)}"
            raise SettingsError(
                f"{self.folder} holds {only} only, which cannot be isolated; make a run with check forward, loss or "
                "grad as well."
            )
        return checks

    def run_new(self, name: str, like: str, called: str = "", **changes: Any) -> Trace:
        """Run the new side once more, as it was run as ``like``; a crash is told as in :meth:`Sides.new`.

        Args:
            name: of the run and its files.
            like: the run whose job is taken.
            called: as in :func:`run_side`.
            **changes: fields of the job that change.
        """
        trace, status = str(self.folder / name), str(self.folder / f"{name}.status.json")
        job = replace(self.job(like), trace=trace, status=status, **changes)

        def work() -> None:
            run_side(name, job, self.folder, sys.executable, self.time_limit, other_python=False, called=called)

        return recorded_by(work, self.folder / name)


def isolate(kept: RunFolder, verdict: Verdict, progress: Progress) -> Verdict:
    """Run the new side again, every module on what its twin was given; add what that shows to ``verdict``.

    Args:
        kept: of the ordinary run; gets further traces, ``isolated`` and for a derived tolerance ``isolated64``.
        verdict: of the ordinary run.
        progress: is told each step.

    Raises:
        SettingsError: if the run holds nothing but a training.
        TraceError: if the folder lacks something.
        legacy_adapters.launch.SideError: if a side crashes or takes too long.
    """
    folder = kept.folder
    mapping = replace(kept.port.mapping, containers=verdict.containers)
    legacy = in_new_form(Trace.load(folder / LEGACY), mapping)
    if not (folder / DECISIONS).exists():
        save_file(decisions_for_new_side(decisions(legacy), mapping), str(folder / DECISIONS))

    new = Trace.load(folder / NEW)
    likeness = None if kept.tolerance.name == EXACT else likeness_of(legacy, new, None)
    keys = pair(legacy.records, new.records, mapping, (), likeness).keys

    def forced(run: str, twin: Trace) -> Trace:
        name = run.replace(NEW, ISOLATED)
        force = write_forcing(folder / f"{name}.forced.json", twin, keys)
        return kept.run_new(name, run, force=force, replay=str(folder / DECISIONS), checks=kept.isolable(run))

    progress("running the new side again, giving each module its twin's inputs")
    isolated = forced(NEW, legacy)
    evidence = None
    if kept.tolerance.name == DERIVED:
        progress("and so in float64")
        reference = in_new_form(Trace.load(folder / (LEGACY + FLOAT64)), mapping)
        twin = forced(NEW + FLOAT64, reference)
        evidence = TraceEvidence(legacy, reference, load_spread(folder / SPREAD), isolated, twin, mapping.paddings)
    alone = judge(_isolable(legacy), isolated, mapping, kept.exclusions, kept.tolerance, evidence, keys)
    if verdict.outcome == MATCH:
        ended(alone)
    counterparts = Counterparts.of(legacy, isolated, mapping)
    merged = with_isolation(verdict, alone, legacy.records, isolated.coverage.get("forced", ()), counterparts)
    return _explained(merged, legacy, isolated, mapping)


def _explained(verdict: Verdict, legacy: Trace, isolated: Trace, mapping: Mapping) -> Verdict:
    """Say what the difference at each of the first places is that an isolated run showed."""
    isolation = verdict.isolation
    if isolation is None:
        return verdict
    culprits = tuple(
        replace(one, explanation=explanation_of_pair(one.alone, isolation.comparisons, legacy, isolated, mapping))
        if number < _MOST_EXPLAINED else one
        for number, one in enumerate(isolation.culprits)
    )  # fmt: skip
    return replace(verdict, isolation=replace(isolation, culprits=culprits))


def _isolable(legacy: Trace) -> Trace:
    """Leave out what the isolated run does not make: initialising, other ways of inference, steps of a training."""
    provenance, coverage = dict(legacy.provenance), dict(legacy.coverage)
    provenance["checks"] = [check for check in provenance["checks"] if check not in _NOT_ISOLATED]
    coverage.pop(INIT, None)
    for name in ("leaf_calls", "inner_calls", "records"):
        coverage[name] = [entry for entry in coverage.get(name, ()) if is_isolable(entry["phase"])]
    for name in ("changed_inputs", "cut_off", "not_finite", PERMUTED, SELECTED):
        coverage[name] = [entry for entry in coverage.get(name, ()) if is_isolable(entry[0])]
    kept = tuple(record for record in legacy.records if is_isolable(record.phase))
    lost = {record.name for record in legacy.records if record.kind == Kind.GRAD}
    lost -= {record.name for record in kept if record.kind == Kind.GRAD}
    coverage["without_gradient"] = sorted(lost | set(coverage["without_gradient"]))
    return replace(legacy, provenance=provenance, coverage=coverage, records=kept)


def is_isolable(phase: str) -> bool:
    """Tell whether an isolated run has this phase."""
    return phase in _PHASES
