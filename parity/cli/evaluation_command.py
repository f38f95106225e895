"""What ``ddq-parity eval`` does."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from converters.rules.ports import Port
from ddq_port import requirements
from legacy_adapters.ground.console import message

from ..evaluation import coco
from ..evaluation import report as evaluation_report
from ..evaluation.evaluation import Bounds, EvalVerdict, files_of
from ..evaluation.plot import draw_worst
from ..evaluation.run import EvalTask, categories_of, evaluate, options_dict
from ..runs.run import check_legacy
from ..sides.adapter_check import Needs, check_adapters
from ..sides.places import EVALUATION
from ..sides.settings import Sources
from ..sides.sides import check_device, with_layouts
from .commands import machine_of
from .console import OpenConsole, done, progress, written
from .output import whole_folder
from .trace_commands import INPUT_ERRORS

REPORT = "report.json"


def run(
    *, ann: Path, images: Path, limit: int | None, port: Port, seed: int,
    scale: tuple[int, int] | None, bounds: Bounds, legacy_repo: Path | None, legacy_python: str | None,
    require_known_commit: bool, checkpoint: Path | None, new_adapter: Path | None, worst: int, out: Path | None,
    as_json: bool, quiet: bool, **machine: Any,
) -> int:  # fmt: skip
    """Detect with both sides, print the verdict, and return the exit code.

    Args:
        ann: annotation file in COCO's format.
        images: folder of its images.
        limit: as in :func:`coco.load`.
        port: as in :class:`EvalTask`, like the next two.
        seed: see there.
        scale: see there.
        bounds: what counts as equal.
        legacy_repo: as in :class:`Sources`, like the next four.
        legacy_python: see there.
        require_known_commit: see there.
        checkpoint: see there.
        new_adapter: see there.
        worst: number of images to draw in ``out``.
        out: folder that keeps everything, in place of what it holds, or None.
        as_json: print JSON instead of tables.
        quiet: print the verdict line only.
        **machine: the fields of :class:`Machine`.
    """
    sources = Sources(legacy_repo, legacy_python, checkpoint, new_adapter, require_known_commit)
    where = machine_of(machine)

    def work() -> EvalVerdict:
        requirements.check(("pycocotools", *(() if out is None else ("matplotlib", "PIL"))))
        check_legacy(port.family, sources)
        check_device(where)
        used = coco.load(ann, images, limit)
        task = EvalTask(with_layouts(port, sources, where), seed, scale)
        categories = categories_of(task, sources, used)
        check_adapters(Needs(task.port, checks=(), scale=scale), sources, where, progress(quiet))
        with whole_folder(out) as folder:
            options = options_dict(task, sources, where, bounds, used)
            (folder / EVALUATION).write_text(json.dumps(options, indent=1, sort_keys=True, default=str))
            verdict = evaluate(task, sources, where, bounds, used, categories, folder, progress(quiet))
            if out is not None:
                _keep_report(verdict, used, worst, folder)
        return verdict

    verdict, code = done(work, (*INPUT_ERRORS, coco.BadSetError))
    if verdict is None:
        return code

    written(partial(_render, verdict, as_json, quiet))
    if out is not None and not quiet:
        message(f"wrote {out / REPORT} and the worst images, {out}/worst-*.png")
    return verdict.exit_code


def _keep_report(verdict: EvalVerdict, images: coco.ImageSet, worst: int, folder: Path) -> None:
    """Write the report and draw the ``worst`` images into ``folder``."""
    draw_worst(verdict, files_of(folder), images, worst, folder)
    (folder / REPORT).write_text(json.dumps(evaluation_report.as_dict(verdict), indent=1, sort_keys=True))


def _render(verdict: EvalVerdict, as_json: bool, quiet: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(evaluation_report.as_dict(verdict), indent=1) + "\n")
    else:
        evaluation_report.print_verdict(verdict, OpenConsole(), quiet)
