"""What the subcommands of ``ddq-parity`` do: call, render, turn errors into one line and an exit code."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.nn import Module

from converters import errors
from converters.rules.ports import Port
from converters.rules.ports import port as port_of
from legacy_adapters import registry
from legacy_adapters.family import LEGACY, NEW, Exclusion, FamilyError, RepoError
from legacy_adapters.launch import RefusedError
from legacy_adapters.recording.trace_writer import INDEX_NAME

from ..comparing.compare import EXACT, FIXED, Tolerance
from ..comparing.pairing import DuplicateRecordError
from ..decisions import audit as near_ties
from ..golden import golden
from ..golden.golden import GoldenError
from ..report import audit_report, report, report_json
from ..report.captured import golden_line
from ..runs import capture as golden_runs
from ..runs.bisect import Bisection
from ..runs.bisect import bisect as find_first
from ..runs.isolate import RunFolder
from ..runs.run import check_legacy
from ..runs.run import run as run_parity
from ..scripts.checking import Checked, check_modules
from ..scripts.judging import is_script, judge_scripts
from ..scripts.names import GivenRules, rules_of
from ..sides.adapter_check import Needs, check_adapters
from ..sides.packages import check_packages
from ..sides.places import RUN, SCRIPT
from ..sides.settings import Machine, RunOptions, SettingsError, Sources, Task, sources_of, task_of
from ..sides.sides import default_threads, prepare
from ..traces.trace import Trace, TraceError
from ..verdict.verdict import Verdict, judge, with_asked
from .console import OpenConsole, done, progress, renamed, written
from .output import whole_folder
from .report_files import ReportFiles

Progress = Callable[[str], None]

REPORT_NAME = "report.json"
#: Lines of a summary before its closing line.
_MOST_SAID = 4
#: What a user's input can cause; each message is one line.
INPUT_ERRORS = (
    DuplicateRecordError,
    GoldenError,
    RepoError,
    RefusedError,
    SettingsError,
    TraceError,
    errors.CheckpointError,
    errors.ConversionError,
    FamilyError,
    OSError,
)


def run(*, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Run both sides and print the verdict. Return the exit code.

    Args:
        as_json: print JSON instead of the table.
        quiet: print the verdict line only.
        **settings: as in :func:`judge_run`.
    """
    return _judged(lambda: judge_run(tell=progress(quiet), **settings), as_json, quiet)


def judge_run(
    *, out: Path | None, replay: bool, isolate: bool, dtype: str, tolerance: str, rtol: float, atol: float,
    tell: Progress, exclusions: tuple[Exclusion, ...] = (), files: ReportFiles = ReportFiles(), **settings: Any,
) -> Verdict:  # fmt: skip
    """Run both sides and judge them.

    Args:
        out: folder that keeps everything, in place of what it holds, or None.
        replay: as in :class:`RunOptions`.
        isolate: as in :class:`RunOptions`.
        dtype: as in :class:`RunOptions`.
        tolerance: by name.
        rtol: of ``fixed``.
        atol: of ``fixed``.
        tell: is told each step.
        exclusions: beside those of the family.
        files: that tell the verdict.
        **settings: the fields of :class:`Task`, :class:`Sources` and :class:`Machine`.
    """
    task, sources, machine = _settings(settings)
    bounds = tolerance_of(tolerance, rtol, atol)
    options = RunOptions(task, sources, machine, dtype, bounds, replay, isolate, exclusions)
    check_legacy(task.port.family, sources)
    prepared = prepare(task, sources, machine)
    check_adapters(Needs.of(task, prepared.port), sources, machine, tell)
    with whole_folder(out) as folder:
        verdict = with_asked(run_parity(options, prepared, folder, tell), exclusions)
        _write_report(folder / REPORT_NAME, verdict)
        audited = _audited(files, folder / LEGACY, folder / NEW)
    _write_files(files, verdict, audited)
    return verdict


def capture(*, file: Path, quiet: bool, **settings: Any) -> int:
    """Record the legacy side into a golden file. Return the exit code; arguments as in :func:`record_golden`."""
    recorded, code = done(lambda: record_golden(file=file, tell=progress(quiet), **settings), INPUT_ERRORS)
    if recorded is not None:
        sys.stdout.write(golden_line(recorded, file) + "\n")
    return code


def record_golden(*, file: Path, tell: Progress, **settings: Any) -> golden.Golden:
    """Record the legacy side into a golden file, and return what it holds; arguments as in :func:`judge_run`."""
    task, sources, machine = _settings(settings)
    check_legacy(task.port.family, sources)
    prepared = prepare(task, sources, machine)
    check_adapters(Needs.of(task, prepared.port), sources, machine, tell, (LEGACY,))
    with whole_folder(None) as folder:
        recorded = golden_runs.capture(task, sources, machine, prepared, folder, tell)
    return replace(recorded, seal=golden.save(recorded, file))


def check(*, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Compare the new side with a golden file. Return the exit code; arguments as in :func:`judge_golden`."""
    return _judged(lambda: judge_golden(tell=progress(quiet), **settings), as_json, quiet)


def judge_golden(
    *, file: Path, out: Path | None, checkpoint: Path | None, new_adapter: Path | None,
    expect_digest: str | None = None, family: str | None = None, tell: Progress, files: ReportFiles = ReportFiles(),
    **machine: Any,
) -> Verdict:  # fmt: skip
    """Run the new side and judge it by a golden file; arguments as in :func:`judge_run`.

    With ``expect_digest``, a file of another digest is refused; ``family`` names one that is not installed.
    """
    sources = Sources(checkpoint=checkpoint, new_adapter=new_adapter)
    where = machine_of(machine)
    recorded = golden.load(file, family)
    recorded.check_seal(file, expect_digest)
    if recorded.task is None:
        raise GoldenError(f"{file} is of a module that a test makes; run that test with pytest (docs/pytest.md).")
    check_packages(recorded.task.port.family, sources)
    prepared = prepare(recorded.task, sources, where)
    recorded.check_given(prepared)
    check_adapters(Needs.of(recorded.task, prepared.port), sources, where, tell, (NEW,))
    with whole_folder(out) as folder:
        verdict = golden_runs.check(recorded, sources, where, prepared, folder, tell)
        _write_report(folder / REPORT_NAME, verdict)
        audited = _audited(files, folder / NEW)
    _write_files(files, verdict, audited)
    return verdict


def compare(*, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Compare two trace folders and print the verdict. Return the exit code; arguments as in :func:`judge_traces`."""
    return _judged(lambda: judge_traces(**settings), as_json, quiet)


def judge_traces(
    *, legacy: Path, new: Path, family: str | None, variant: str | None, tolerance: str, rtol: float, atol: float,
    rules: GivenRules = None, verify: bool, expect_digest: str | None, exclusions: tuple[Exclusion, ...] = (), files: ReportFiles = ReportFiles(),
) -> Verdict:  # fmt: skip
    """Compare two trace folders and judge them.

    What can turn the verdict is checked: always that the shards are whole, and with a tolerance other than ``exact``,
    where values count and not only digests, every tensor that is read; with ``verify`` every tensor there is. The
    indexes' own digests are checked always; ``expect_digest`` asks for one of the legacy trace. Without ``family`` and
    ``variant`` the traces tell them. Traces of scripts have no family; ``rules`` are for these.
    """
    one, two = (Trace.load(folder, checked=tolerance != EXACT and not verify) for folder in (legacy, new))
    scripts = _are_of_scripts(one, two, family or variant, rules)
    port = None if scripts else _recorded_for(one, two, family, variant)
    for trace in (one, two) if verify else ():
        trace.verify()
    if expect_digest is not None and not one.seal.startswith(expect_digest):
        raise TraceError(f"{legacy} has the digest {one.seal}; expected {expect_digest}.")
    if port is None:
        verdict = judge_scripts(one, two, rules_of(rules), exclusions, tolerance_of(tolerance, rtol, atol))
        verdict = with_asked(verdict, exclusions)
        _write_files(files, verdict, _audited(files, legacy))
        return verdict
    try:
        excluded = (*port.exclusions, *exclusions)
        verdict = with_asked(judge(one, two, port.mapping, excluded, tolerance_of(tolerance, rtol, atol)), exclusions)
    except errors.UnmappedKeyError as error:
        raise TraceError(
            f"{legacy} does not have the legacy layout of {port}; if the arguments are swapped, call "
            f"`compare LEGACY NEW`. {errors.one_line(error)}"
        ) from error
    _write_files(files, verdict, _audited(files, legacy))
    return verdict


def judge_modules(old: Module, new: Module, asked: Checked, files: ReportFiles, tell: Progress) -> Verdict:
    """Compare two modules at hand, and write the files that tell the verdict."""
    verdict = with_asked(check_modules(old, new, asked, tell), asked.exclusions)
    _write_files(files, verdict, ())
    return verdict


def _are_of_scripts(one: Trace, two: Trace, port: str | None, rules: GivenRules) -> bool:
    """Tell whether both traces are of scripts, whose names the user's rules pair, or of runs of a family.

    Raises:
        TraceError: if one is of each kind, or something was passed that is for the other kind.
    """
    script, other = ([trace for trace in (one, two) if is_script(trace) is kind] for kind in (True, False))
    if script and other:
        raise TraceError(f"{script[0].folder} was recorded by a script, {other[0].folder} by a run; give two of one kind.")
    if script and port is not None:
        raise TraceError(f"{one.folder} was recorded by a script and is of no family; leave --family and --variant out.")
    if other and rules is not None:
        raise TraceError(f"{one.folder} was recorded by a run, whose family has rules of its own; leave --rules out.")
    return bool(script)


def _recorded_for(legacy: Trace, new: Trace, family: str | None, variant: str | None) -> Port:
    """Return the model that two traces are compared as.

    Args:
        legacy: trace of the legacy side, which must have been recorded for it.
        new: trace of the new side; recorded for another family if ``family`` is given.
        family: name or folder that was asked for; None for that of the traces.
        variant: that was asked for; None for that of the traces.

    Raises:
        FamilyError: if the family, or its variant, is not there.
        TraceError: if a trace was recorded for something else.
    """
    one, two = ((trace.provenance.get("family"), trace.provenance.get("variant")) for trace in (legacy, new))
    reference = family or _reference(legacy, one[0])
    if reference is None or (variant or one[1]) is None:
        raise TraceError(f"{legacy.folder} does not say what it was recorded for; pass --family and --variant.")
    port = port_of(reference, variant or one[1])
    asked = port.family.name, port.variant.name
    for trace, told in ((legacy, one), (new, two)):
        found = told[0] or asked[0], told[1] or asked[1]
        if found[1] != asked[1] or (found[0] != asked[0] and (trace is legacy or family is None)):
            other = legacy if trace is new and (family, variant) == (None, None) else None
            expected = f"{other.folder} for {port}" if other else f"expected {port}"
            raise TraceError(f"{trace.folder} was recorded for {' '.join(found)}, {expected}; give two traces of one run.")
    return port


def _reference(trace: Trace, name: str | None) -> str | None:
    """Return what finds a trace's family: its name or, of one that is not installed, the folder that its run tells."""
    if name is None or name in registry.names():
        return name
    try:
        task = json.loads((trace.folder.absolute().parent / RUN).read_text(encoding="utf-8"))["task"]
        return task["family"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FamilyError(f"Family {name} of {trace.folder} is not installed; pass its folder with --family.") from None


def bisect(*, run: Path, out: Path, files: ReportFiles, as_json: bool, quiet: bool) -> int:
    """Isolate in the folder of a kept run and write a script that shows the first error. Return the exit code."""

    def work() -> Bisection:
        kept = RunFolder.load(run)
        with tempfile.TemporaryDirectory(prefix=".reproducer-", dir=run) as made:
            found = find_first(kept, Path(made).absolute(), progress(quiet))
            if found.script is not None:
                with whole_folder(out) as whole:
                    shutil.copytree(made, whole, dirs_exist_ok=True)
            elif (out / SCRIPT).is_file():
                shutil.rmtree(out)  # of an earlier bisect: it would pass for this one's
        _write_files(files, found.verdict, _audited(files, run / LEGACY))
        return replace(found, script=out / found.script.name) if found.script else found

    found, code = done(work, INPUT_ERRORS)
    if found is None:
        return code
    return _told(found.verdict, as_json, quiet, found.script)


def audit(*, trace: Path, ulps: float, worst: int, as_json: bool, quiet: bool) -> int:
    """Print how close the decisions of a trace are to ties. Return the exit code."""
    decisions, code = done(lambda: near_ties.audit(Trace.load(trace)), INPUT_ERRORS)
    if decisions is None:
        return code

    def render() -> None:
        if as_json:
            sys.stdout.write(json.dumps(audit_report.as_dict(decisions, ulps), indent=1) + "\n")
        else:
            audit_report.print_audit(decisions, ulps, worst, OpenConsole(), quiet)

    written(render)
    return audit_report.exit_code(decisions)


def _judged(work: Callable[[], Verdict], as_json: bool, quiet: bool) -> int:
    verdict, code = done(work, INPUT_ERRORS)
    return code if verdict is None else _told(verdict, as_json, quiet)


def _told(verdict: Verdict, as_json: bool, quiet: bool, script: Path | None = None) -> int:
    """Print a verdict and return its exit code."""

    words = _words(verdict)

    def render() -> None:
        if as_json:
            shown = renamed(report_json.as_dict(verdict), words)
            if script is not None:
                shown["script"] = str(script)
            sys.stdout.write(json.dumps(shown, indent=1) + "\n")
        else:
            report.print_verdict(verdict, OpenConsole(words), quiet, script)

    written(render)
    return verdict.exit_code


def _words(verdict: Verdict) -> dict[str, str]:
    """Return what a model that is no detector is called in place of ``the detector``."""
    if verdict.provenance[NEW].get("detects", True):
        return {}
    return {"the detector": "the model", "The detector": "The model", ": detector": ": model"}


def summary(verdict: Verdict) -> str:
    """Return a verdict in at most five lines, the closing line last."""
    words = _words(verdict)
    said = [] if verdict.divergence is None else [verdict.divergence.message, *report.divergence_lines(verdict)]
    return "\n".join(renamed([*said[:_MOST_SAID], report.closing_line(verdict)], words))


def in_own_words(verdict: Verdict) -> Verdict:
    """Return a verdict for who reads its fields; of a model that is no detector it says so."""
    words = _words(verdict)
    if not words:
        return verdict
    divergence, isolation = verdict.divergence, verdict.isolation
    if divergence is not None:
        divergence = replace(
            divergence, where=renamed(divergence.where, words), message=renamed(divergence.message, words)
        )
    if isolation is not None:
        culprits = tuple(
            replace(
                culprit, where=renamed(culprit.where, words), message=renamed(culprit.message, words),
                follows=tuple(renamed(list(culprit.follows), words)),
            )
            for culprit in isolation.culprits
        )  # fmt: skip
        isolation = replace(isolation, culprits=culprits)
    reasons = tuple(renamed(list(verdict.reasons), words))
    return replace(verdict, divergence=divergence, isolation=isolation, reasons=reasons)


def _settings(settings: dict[str, Any]) -> tuple[Task, Sources, Machine]:
    """Sort settings by their class."""
    return task_of(settings), sources_of(settings), machine_of(settings)


def machine_of(settings: dict[str, Any]) -> Machine:
    """Make a machine of its fields; None for ``threads`` means torch's own choice."""
    return Machine(**{**settings, "threads": settings["threads"] or default_threads()})


def tolerance_of(tolerance: str, rtol: float, atol: float) -> Tolerance:
    """Return a tolerance of its name and, of ``fixed``, its bounds."""
    return Tolerance(tolerance, rtol, atol) if tolerance == FIXED else Tolerance(tolerance)


def _audited(files: ReportFiles, *traces: Path) -> tuple[near_ties.AuditedDecision, ...]:
    """Tell for a page how close the decisions of the first of ``traces`` that is there were; nothing without a page."""
    there = [trace for trace in traces if files.html is not None and (trace / INDEX_NAME).is_file()]
    return near_ties.audit(Trace.load(there[0])) if there else ()


def _write_files(files: ReportFiles, verdict: Verdict, audited: tuple[near_ties.AuditedDecision, ...]) -> None:
    files.write(in_own_words(verdict), _words(verdict), audited)


def _write_report(path: Path, verdict: Verdict) -> None:
    shown = renamed(report_json.as_dict(verdict), _words(verdict))
    path.write_text(json.dumps(shown, indent=1, sort_keys=True))
