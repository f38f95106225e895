"""Draw what both sides found in an image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .coco import ImageSet
from .detections import Detections
from .evaluation import EvalVerdict, ImageResult, read
from .pairing import LEGACY, NEW

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BOXES = 20
_PAIRED, _ALONE = "#2fbf71", "#ff2d55"


def draw_worst(verdict: EvalVerdict, files: dict[str, Path], images: ImageSet, count: int, folder: Path) -> list[Path]:
    """Draw the images that differ most and return the files, ``worst-1-ID.png`` first.

    Args:
        verdict: of the evaluation.
        files: that both sides wrote.
        images: that both were given.
        count: how many to draw.
        folder: to write to.
    """
    wanted = {result.image: result for result in verdict.worst(count)}
    found: dict[int, dict[str, Detections]] = {number: {} for number in wanted}
    for side, file in files.items():
        reader = read(side, file, images)
        next(reader)
        for one in reader:
            if one.image in wanted:
                found[one.image][side] = one.detections
    names = [name for _, name in images.categories]
    written = []
    for rank, (number, result) in enumerate(wanted.items(), 1):
        written.append(folder / f"worst-{rank}-{number}.png")
        draw(result, found[number], names, written[-1])
    return written


def draw(result: ImageResult, found: dict[str, Detections], names: Sequence[str], file: Path) -> None:
    """Write a PNG with the legacy side on the left and the new side on the right.

    Of each side the :data:`MOST_BOXES` best detections are drawn, green, and as many that have no partner, red.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps

    with Image.open(result.file) as opened:
        pixels = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))  # cv2 turns images alike
    height, width = pixels.shape[:2]
    panel = 6.0 * width / max(height, width), 6.0 * height / max(height, width)
    figure = Figure(figsize=(2 * max(panel[0], 3.2) + 0.6, panel[1] + 1.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for place, side in enumerate((LEGACY, NEW), 1):
        axes = figure.add_subplot(1, 2, place)
        axes.imshow(pixels)
        _draw_side(axes, result, side, found[side], names)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_axis_off()
    same = "the same bits" if result.identical else f"scores differ by up to {result.match.score_gap:.2g}, boxes by up "
    same += "" if result.identical else f"to {result.box_gap:.2g} px"
    figure.suptitle(f"image {result.image}, {result.file.name}: {same}", fontsize=9)
    figure.savefig(file)


def _draw_side(axes: Axes, result: ImageResult, side: str, found: Detections, names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    order = found.scores.argsort(descending=True).tolist()
    alone = {one.row for one in result.match.unmatched[side]}
    shown = {*order[:MOST_BOXES], *[row for row in order if row in alone][:MOST_BOXES]}
    for row in sorted(shown, key=lambda row: row in alone):
        left, top, right, bottom = found.bboxes[row].tolist()
        color = _ALONE if row in alone else _PAIRED
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=1.2))
        label = f"{names[int(found.labels[row])]} {found.scores[row]:.2f}"
        axes.text(left, top, label, fontsize=6, color="black", verticalalignment="bottom", clip_on=True,
                  bbox=dict(facecolor=color, edgecolor="none", pad=0.6, alpha=0.75))  # fmt: skip
    lone = f", {len(alone)} without a partner" if alone else ""
    axes.set_title(f"{side}: {len(found)} detections{lone}", fontsize=9)
