"""What ``ddq-parity curves`` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ddq_port import requirements
from legacy_adapters.ground.console import message

from ..curves import curves
from ..curves import report as curves_report
from ..curves.logs import load, renamed
from ..curves.runlog import BadLogError
from .console import OpenConsole, done, written
from .output import check_new_files, whole_files

PLOT, REPORT = "curves.png", "curves.json"


def run(
    *, log_a: Path, log_b: Path, band: Sequence[Path], rename: Sequence[tuple[str, str]], exclude: Sequence[str],
    until: float | None, level: float, resolve: float, out: Path | None, force: bool, as_json: bool, quiet: bool,
) -> int:  # fmt: skip
    """Compare two training logs, print the verdict, and return the exit code.

    Args:
        log_a: log or work dir of the reference.
        log_b: of the training to judge.
        band: of repetitions of the reference with other seeds.
        rename: (name in B, name in A) of loss terms.
        exclude: loss terms to leave out, under A's names.
        until: as in :func:`curves.compare`, like the next two.
        level: see there.
        resolve: see there.
        out: folder for plot and report, or None.
        force: replace those of an earlier comparison.
        as_json: print JSON instead of tables.
        quiet: print the verdict line only.
    """

    def work() -> curves.CurvesVerdict:
        check_new_files(out, (PLOT, REPORT), force)
        requirements.check(("matplotlib",) if out is not None else ())
        a, b, *others = (load(path) for path in (log_a, log_b, *band))
        b = renamed(b, dict(rename))
        verdict = curves.compare(a, b, others, level=level, resolve=resolve, until=until, excluded=exclude)
        if out is not None:
            _keep(verdict, out)
        return verdict

    verdict, code = done(work, (BadLogError, OSError))
    if verdict is None:
        return code

    def render() -> None:
        if as_json:
            sys.stdout.write(json.dumps(curves_report.as_dict(verdict), indent=1) + "\n")
        else:
            curves_report.print_verdict(verdict, OpenConsole(), quiet)

    written(render)
    if out is not None and not quiet:
        message(f"wrote {out / PLOT} and {out / REPORT}")
    return verdict.exit_code


def _keep(verdict: curves.CurvesVerdict, out: Path) -> None:
    """Write plot and report, both or none."""
    from ..curves.plot import draw

    with whole_files(out, (PLOT, REPORT)) as folder:
        draw(verdict, folder / PLOT)
        (folder / REPORT).write_text(json.dumps(curves_report.as_dict(verdict), indent=1, sort_keys=True))
