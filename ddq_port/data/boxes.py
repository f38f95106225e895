"""Tell from the boxes of a data set in which form they were written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
_SLACK = 1.0  # pixels by which a box may reach out of its image: annotation tools round
_FEWEST = 3  # boxes from which anything is concluded
_SUSPICIOUS = 0.2  # share of boxes that leave their images, from which another form is considered
_FITTING = 0.98  # share that must be in order under the other form


@dataclass(frozen=True)
class PlacedBox:
    """A box as it is written.

    Attributes:
        box: its four numbers.
        size: width and height of its image in pixels, as they are written.
    """

    box: Box
    size: tuple[float, float]


def _inside(x1: float, y1: float, x2: float, y2: float, size: tuple[float, float]) -> bool:
    width, height = size
    return min(x1, y1) >= -_SLACK and x2 <= width + _SLACK and y2 <= height + _SLACK


def _xywh(box: Box, size: tuple[float, float]) -> bool:
    x, y, w, h = box
    return min(w, h) >= 0 and _inside(x, y, x + w, y + h, size)


def _xyxy(box: Box, size: tuple[float, float]) -> bool:
    x1, y1, x2, y2 = box
    return x2 > x1 and y2 > y1 and _inside(x1, y1, x2, y2, size)


def _cxcywh(box: Box, size: tuple[float, float]) -> bool:
    x, y, w, h = box
    return min(w, h) > 0 and _inside(x - w / 2, y - h / 2, x + w / 2, y + h / 2, size)


def _yxhw(box: Box, size: tuple[float, float]) -> bool:
    y, x, h, w = box
    return _xywh((x, y, w, h), size)


def _of_turned(box: Box, size: tuple[float, float]) -> bool:
    return _xywh(box, size[::-1])


_FORMS: tuple[tuple[Callable[[Box, tuple[float, float]], bool], str], ...] = (
    (_xyxy, "they look like corners [x1, y1, x2, y2]; write [x1, y1, x2 - x1, y2 - y1]"),
    (
        _cxcywh,
        "they look like [center x, center y, width, height]; write [x - width / 2, y - height / 2, width, height]",
    ),
    (_of_turned, "width and height of the images look exchanged; exchange them in `images`"),
    (_yxhw, "they look like [y, x, height, width]; write [x, y, width, height]"),
)
_NORMALISED = "look like shares of width and height, between 0 and 1; multiply them by the image's size"


def other_form(boxes: Sequence[PlacedBox]) -> str | None:
    """Say what the boxes look like and what to write, if it is not [x, y, width, height] in pixels; else None."""
    if len(boxes) < _FEWEST:
        return None
    if all(max(map(abs, placed.box)) <= 1 for placed in boxes) and min(min(placed.size) for placed in boxes) > 2:
        return f"all {len(boxes)} {_NORMALISED}{_center(boxes)}"
    leaving = [placed for placed in boxes if not _xywh(placed.box, placed.size)]
    if len(leaving) < max(2, _SUSPICIOUS * len(boxes)):
        return None
    for fits, text in _FORMS:
        if sum(fits(placed.box, placed.size) for placed in boxes) >= _FITTING * len(boxes):
            return f"{len(leaving)} of {len(boxes)} leave their images, and {text}"
    return None


def _center(boxes: Sequence[PlacedBox]) -> str:
    """Add that the boxes begin at their centers, if some leave the image otherwise and none does then."""
    slack = 1e-3
    written = [placed.box for placed in boxes]
    leaves = any(x + w > 1 + slack or y + h > 1 + slack for x, y, w, h in written)
    centered = all(
        min(x - w / 2, y - h / 2) >= -slack and max(x + w / 2, y + h / 2) <= 1 + slack for x, y, w, h in written
    )
    return ", and x, y is the center of the box, as YOLO writes it" if leaves and centered else ""
