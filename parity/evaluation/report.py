"""Tell what the comparison over a data set showed: for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from legacy_adapters.ground.words import counted
from legacy_adapters.provenance import originals

from ..comparing.pairing import LEGACY, NEW
from ..report.printing import finite, print_wrapped
from ..report.report import as_sentence, provenance_line
from ..sides.shared import shared_code, without_files
from ..verdict.outcome import MATCH
from .coco import STATS
from .evaluation import EvalVerdict, ImageResult

_MOST_ROWS = 10


def print_verdict(verdict: EvalVerdict, console: Console, quiet: bool) -> None:
    """Write the tables and, last, one line that can be grepped; that alone if ``quiet``."""
    if not quiet:
        for side, provenance in verdict.provenance.items():
            print_wrapped(provenance_line(side, provenance), console)
        if (shared := shared_code(verdict.provenance)) is not None:
            print_wrapped(shared.line(), console)
        console.print(_image_table(verdict))
        if len(verdict.images) > _MOST_ROWS:
            console.print(
                f"and {counted(len(verdict.images) - _MOST_ROWS, 'more image')} with smaller differences",
                highlight=False,
            )
        if any(verdict.aps.values()):
            console.print(_ap_table(verdict))
        for note in verdict.notes:
            print_wrapped(f"note: {note}", console)
    console.print(closing_line(verdict), markup=False, highlight=False, soft_wrap=True)


def closing_line(verdict: EvalVerdict) -> str:
    """Return the verdict in one line, e.g. ``MATCH 8 of 8 images, 2400 detections bit-identical; AP 0.513 on both``."""
    remark = originals.remark(verdict.provenance[LEGACY])
    if verdict.outcome != MATCH:
        return f"{verdict.outcome} {' '.join(verdict.reasons)}{as_sentence(remark)}"
    same = sum(result.identical for result in verdict.images)
    count = sum(result.match.counts[NEW] for result in verdict.images)
    within = "" if same == len(verdict.images) else f", {len(verdict.images)} within the bounds"
    one, two = (verdict.aps[side] and verdict.aps[side]["AP"] for side in (LEGACY, NEW))
    ap = "no AP" if one is None else f"AP {one:.4f} on both sides" if one == two else f"AP {one:.4f} and {two:.4f}"
    images, detections = counted(len(verdict.images), "image"), counted(count, "detection")
    said = f"MATCH {same} of {images} bit-identical{within}, {detections}; {ap}"
    return f"{said}, {remark}" if remark else said


def _image_table(verdict: EvalVerdict) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("image", no_wrap=True, overflow="ellipsis", max_width=24)
    for title in ("network sees", LEGACY, NEW, "paired", "alone", "scores", "boxes px"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in verdict.worst(_MOST_ROWS):
        counts = result.match.counts
        alone = sum(len(side) for side in result.match.unmatched.values())
        table.add_row(
            Text(result.file.name), _size(result), str(counts[LEGACY]), str(counts[NEW]), str(len(result.match.rows)),
            str(alone), f"{result.match.score_gap:.2g}", f"{result.box_gap:.2g}",
            style=None if result.accepted else "bold red",
        )  # fmt: skip
    return table


def _size(result: ImageResult) -> str:
    one, two = ("x".join(map(str, result.shapes[side][-2:])) for side in (LEGACY, NEW))
    if one != two:
        return f"{one}|{two}"
    return one if result.same_input else f"{one}, other"


def _ap_table(verdict: EvalVerdict) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("")
    for name in STATS:
        table.add_column(name, justify="right", no_wrap=True)
    for side in (LEGACY, NEW):
        stats = verdict.aps[side] or {}
        table.add_row(side, *("-" if stats.get(name) is None else f"{stats[name]:.4f}" for name in STATS))
    return table



def as_dict(verdict: EvalVerdict) -> dict[str, Any]:
    """Return the verdict as plain data for ``--json``; numbers that JSON lacks are null."""
    bounds = verdict.bounds
    return {
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "summary": closing_line(verdict),
        "reasons": list(verdict.reasons),
        "legacy_as_published": not originals.remark(verdict.provenance[LEGACY]),
        "notes": list(verdict.notes),
        "tolerance": "exact" if bounds.exact else {"score": bounds.score, "box": bounds.box, "ap": bounds.ap},
        "aps": verdict.aps,
        "images": [_image_dict(result) for result in verdict.images],
        "provenance": {side: without_files(provenance) for side, provenance in verdict.provenance.items()},
        "shared": None if (shared := shared_code(verdict.provenance)) is None else shared.as_dict(),
    }


def _image_dict(result: ImageResult) -> dict[str, Any]:
    match = result.match
    return {
        "id": result.image,
        "file": str(result.file),
        "accepted": result.accepted,
        "identical": result.identical,
        "same_input": result.same_input,
        "input_shapes": {side: list(shape) for side, shape in result.shapes.items()},
        "detections": dict(match.counts),
        "paired": len(match.rows),
        "alone": {side: [vars(one) for one in detections] for side, detections in match.unmatched.items()},
        "alone_at_the_cut": result.at_cut,
        "moved": match.moved,
        "score_gap": finite(match.score_gap),
        "box_gap": finite(result.box_gap),
        "worst_iou": match.worst_iou,
    }
