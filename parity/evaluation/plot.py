"""Draw what both sides found in an image, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddq_port.labels import Box, color_of, placed
from legacy_adapters.ground.words import counted

from ..comparing.detections import Detections
from ..comparing.pairing import LEGACY, NEW
from .coco import ImageSet
from .evaluation import EvalVerdict, ImageResult, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Color = str | tuple[float, ...]

MOST_BOXES = 20
_ALONE = "#ff2d55"  # the colour of no class
_FONT, _MARGIN = 8, 2  # points; pixels around a label


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
    detections: dict[int, dict[str, Detections]] = {number: {} for number in wanted}
    for side, file in files.items():
        reader = read(side, file, images)
        next(reader)
        for one in reader:
            if one.image in wanted:
                detections[one.image][side] = one.detections
    names = [name for _, name in images.categories]
    written = []
    for rank, (number, result) in enumerate(wanted.items(), 1):
        written.append(folder / f"worst-{rank}-{number}.png")
        draw(result, detections[number], names, written[-1])
    return written


def draw(result: ImageResult, detections: dict[str, Detections], names: Sequence[str], file: Path) -> None:
    """Write a PNG with the legacy side on the left and the new side on the right.

    Of each side the :data:`MOST_BOXES` best detections are drawn in the colours of their classes, and as many that have
    no partner, red and dashed. No label covers another one; those for which there is no place are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image, ImageOps

    with Image.open(result.file) as opened:
        pixels = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))  # cv2 turns images alike
    height, width = pixels.shape[:2]
    panel = 6.0 * width / max(height, width), 6.0 * height / max(height, width)
    figure = Figure(figsize=(2 * max(panel[0], 3.6) + 0.6, panel[1] + 1.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    labels = {}
    for place, side in enumerate((LEGACY, NEW), 1):
        axes = figure.add_subplot(1, 2, place)
        axes.imshow(pixels)
        labels[axes] = _draw_side(axes, result, side, detections[side], names)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
        axes.set_axis_off()
    same = "the same bits" if result.identical else f"scores differ by up to {result.match.score_gap:.2g}, boxes by up "
    same += "" if result.identical else f"to {result.box_gap:.2g} px"
    figure.suptitle(f"image {result.image}, {result.file.name}: {same}", fontsize=10)
    figure.draw_without_rendering()  # from here on the axes stay where they are
    figure.set_layout_engine("none")
    for axes, written in labels.items():
        _write(axes, written)
    figure.savefig(file)


def _draw_side(
    axes: Axes, result: ImageResult, side: str, detections: Detections, names: Sequence[str]
) -> list[tuple[str, Box, Color]]:
    """Draw the boxes of one side; return text, box and colour of each one's label, those without a partner first."""
    from matplotlib.patches import Rectangle

    order = detections.scores.argsort(descending=True).tolist()
    alone = {one.row for one in result.match.unmatched[side]}
    shown = {*order[:MOST_BOXES], *[row for row in order if row in alone][:MOST_BOXES]}
    labels = []
    for row in sorted(shown, key=lambda row: (row in alone, -order.index(row))):
        left, top, right, bottom = box = tuple(detections.bboxes[row].tolist())
        label = int(detections.labels[row])
        color = _ALONE if row in alone else tuple(part / 255 for part in color_of(label))
        style = dict(linewidth=2.2, linestyle="--") if row in alone else dict(linewidth=1.4)
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, **style))
        labels.append((f"{names[label]} {detections.scores[row]:.2f}", box, color))
    lone = f", {len(alone)} without a partner" if alone else ""
    axes.set_title(f"{side}: {counted(len(detections), 'detection')}{lone}", fontsize=10)
    return labels[::-1]


def _write(axes: Axes, labels: Sequence[tuple[str, Box, Color]]) -> None:
    """Write black on a ground of the label's colour, in pixels of the figure, see :func:`ddq_port.labels.placed`."""
    from matplotlib.transforms import IdentityTransform

    frame = axes.get_window_extent()
    texts, boxes, sizes = [], [], []
    for text, (left, top, right, bottom), color in labels:
        if not all(map(math.isfinite, (left, top, right, bottom))):
            continue
        ground = dict(facecolor=color, edgecolor="none", pad=_MARGIN * 72 / axes.figure.dpi, alpha=0.85)
        written = axes.text(
            0, 0, text, fontsize=_FONT, color="black", transform=IdentityTransform(), va="bottom", bbox=ground
        )
        extent = written.get_window_extent()
        (x0, y0), (x1, y1) = axes.transData.transform([(left, top), (right, bottom)])
        texts.append(written)
        # pixels from the upper left corner of the axes, downwards
        boxes.append((x0 - frame.x0, frame.y1 - y0, x1 - frame.x0, frame.y1 - y1))
        sizes.append((extent.width + 2 * _MARGIN, extent.height + 2 * _MARGIN))
    for written, size, place in zip(texts, sizes, placed(boxes, sizes, (frame.width, frame.height))):
        if place is None:
            written.remove()
        else:
            written.set_position((frame.x0 + place[0] + _MARGIN, frame.y1 - place[1] - size[1] + _MARGIN))
