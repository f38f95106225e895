"""What ``ddq-parity compare`` and ``audit`` do, and how every command tells a verdict; none of this runs a side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters import errors
from converters.rules.ports import Port
from converters.rules.ports import port as port_of
from legacy_adapters import registry
from legacy_adapters.family import NEW, Exclusion, FamilyError, RepoError
from legacy_adapters.launch import RefusedError
from legacy_adapters.recording.trace_writer import INDEX_NAME

from ..comparing.compare import EXACT, FIXED, Tolerance
from ..comparing.pairing import DuplicateRecordError
from ..decisions import audit as near_ties
from ..golden.golden import GoldenError
from ..report import audit_report, report, report_json
from ..scripts.judging import is_script, judge_scripts
from ..scripts.names import GivenRules, rules_of
from ..sides.places import RUN
from ..sides.settings import SettingsError
from ..traces.trace import Trace, TraceError
from ..verdict.verdict import Verdict, judge, with_asked
from .console import OpenConsole, done, renamed, written
from .report_files import ReportFiles

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


def compare(*, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Compare two trace folders and print the verdict. Return the exit code; arguments as in :func:`judge_traces`."""
    return judged(lambda: judge_traces(**settings), as_json, quiet)


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
        write_files(files, verdict, audit_for_page(files, legacy))
        return verdict
    try:
        excluded = (*port.exclusions, *exclusions)
        verdict = with_asked(judge(one, two, port.mapping, excluded, tolerance_of(tolerance, rtol, atol)), exclusions)
    except errors.UnmappedKeyError as error:
        raise TraceError(
            f"{legacy} does not have the legacy layout of {port}; if the arguments are swapped, call "
            f"`compare LEGACY NEW`. {errors.one_line(error)}"
        ) from error
    write_files(files, verdict, audit_for_page(files, legacy))
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


def judged(work: Callable[[], Verdict], as_json: bool, quiet: bool) -> int:
    """Print the verdict that ``work`` gives, or what went wrong. Return the exit code."""
    verdict, code = done(work, INPUT_ERRORS)
    return code if verdict is None else tell_verdict(verdict, as_json, quiet)


def tell_verdict(verdict: Verdict, as_json: bool, quiet: bool, script: Path | None = None) -> int:
    """Print a verdict and return its exit code."""

    words = own_words(verdict)

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


def own_words(verdict: Verdict) -> dict[str, str]:
    """Return what a model that is no detector is called in place of ``the detector``."""
    if verdict.provenance[NEW].get("detects", True):
        return {}
    return {"the detector": "the model", "The detector": "The model", ": detector": ": model"}


def summary(verdict: Verdict) -> str:
    """Return a verdict in at most five lines, the closing line last."""
    words = own_words(verdict)
    said = [] if verdict.divergence is None else [verdict.divergence.message, *report.divergence_lines(verdict)]
    return "\n".join(renamed([*said[:_MOST_SAID], report.closing_line(verdict)], words))


def in_own_words(verdict: Verdict) -> Verdict:
    """Return a verdict for who reads its fields; of a model that is no detector it says so."""
    words = own_words(verdict)
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


def tolerance_of(tolerance: str, rtol: float, atol: float) -> Tolerance:
    """Return a tolerance of its name and, of ``fixed``, its bounds."""
    return Tolerance(tolerance, rtol, atol) if tolerance == FIXED else Tolerance(tolerance)


def audit_for_page(files: ReportFiles, *traces: Path) -> tuple[near_ties.AuditedDecision, ...]:
    """Tell for a page how close the decisions of the first of ``traces`` that is there were; nothing without a page."""
    there = [trace for trace in traces if files.html is not None and (trace / INDEX_NAME).is_file()]
    return near_ties.audit(Trace.load(there[0])) if there else ()


def write_files(files: ReportFiles, verdict: Verdict, audited: tuple[near_ties.AuditedDecision, ...]) -> None:
    """Write the page, the XML and the Markdown that were asked for; ``audited`` is for the page."""
    files.write(in_own_words(verdict), own_words(verdict), audited)
