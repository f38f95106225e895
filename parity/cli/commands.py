"""What the subcommands of ``ddq-parity`` do that run a side: call, render, turn errors into one line and an exit code."""

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

from legacy_adapters.family import LEGACY, NEW, Exclusion

from ..golden import golden
from ..golden.golden import GoldenError
from ..report import report_json
from ..report.captured import golden_line
from ..runs import capture as golden_runs
from ..runs.bisect import Bisection
from ..runs.bisect import bisect as find_first
from ..runs.isolate import RunFolder
from ..runs.run import check_legacy
from ..runs.run import run as run_parity
from ..scripts.checking import Checked, check_modules
from ..sides.adapter_check import Needs, check_adapters
from ..sides.packages import check_packages
from ..sides.places import SCRIPT
from ..sides.settings import Machine, RunOptions, Sources, Task, sources_of, task_of
from ..sides.sides import default_threads, prepare
from ..verdict.verdict import Verdict, with_asked
from .console import done, progress, renamed
from .output import whole_folder
from .report_files import ReportFiles
from .trace_commands import INPUT_ERRORS, audit_for_page, judged, own_words, tell_verdict, tolerance_of, write_files

Progress = Callable[[str], None]

REPORT_NAME = "report.json"


def run(*, as_json: bool, quiet: bool, **settings: Any) -> int:
    """Run both sides and print the verdict. Return the exit code.

    Args:
        as_json: print JSON instead of the table.
        quiet: print the verdict line only.
        **settings: as in :func:`judge_run`.
    """
    return judged(lambda: judge_run(tell=progress(quiet), **settings), as_json, quiet)


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
        audited = audit_for_page(files, folder / LEGACY, folder / NEW)
    write_files(files, verdict, audited)
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
    return judged(lambda: judge_golden(tell=progress(quiet), **settings), as_json, quiet)


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
        audited = audit_for_page(files, folder / NEW)
    write_files(files, verdict, audited)
    return verdict


def judge_modules(old: Module, new: Module, asked: Checked, files: ReportFiles, tell: Progress) -> Verdict:
    """Compare two modules at hand, and write the files that tell the verdict."""
    verdict = with_asked(check_modules(old, new, asked, tell), asked.exclusions)
    write_files(files, verdict, ())
    return verdict


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
        write_files(files, found.verdict, audit_for_page(files, run / LEGACY))
        return replace(found, script=out / found.script.name) if found.script else found

    found, code = done(work, INPUT_ERRORS)
    if found is None:
        return code
    return tell_verdict(found.verdict, as_json, quiet, found.script)


def _settings(settings: dict[str, Any]) -> tuple[Task, Sources, Machine]:
    """Sort settings by their class."""
    return task_of(settings), sources_of(settings), machine_of(settings)


def machine_of(settings: dict[str, Any]) -> Machine:
    """Make a machine of its fields; None for ``threads`` means torch's own choice."""
    return Machine(**{**settings, "threads": settings["threads"] or default_threads()})


def _write_report(path: Path, verdict: Verdict) -> None:
    shown = renamed(report_json.as_dict(verdict), own_words(verdict))
    path.write_text(json.dumps(shown, indent=1, sort_keys=True))
