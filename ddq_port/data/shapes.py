"""A small detection data set in COCO format, drawn from a seed: translucent ellipses, rectangles and triangles.

Scenes hold objects of several sizes, pairs that overlap far, crowds, and sometimes nothing. Shapes are translucent, so
that an object that lies under another one still shows its outline and its box is no guess.

The same seed gives the same pixels and annotations on every machine: all numbers come from Python's ``random()``, and
drawing is whole-number arithmetic. PNG files have the same bytes where the same OpenCV writes them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLASSES = ("ellipse", "rectangle", "triangle")
#: Pixels per side of an image.
SIDE = 128
#: Red, green, blue of objects; the background is darker.
PALETTE = (
    (230, 70, 60),
    (70, 190, 80),
    (70, 120, 240),
    (240, 200, 50),
    (200, 80, 210),
    (60, 210, 210),
    (245, 140, 50),
    (225, 225, 225),
)
#: Shortest and longest side of an object in pixels, from small to large.
_SIZES = ((18, 28), (28, 46), (46, 70))
_EMPTY, _CROWDED, _PARTNER = 0.05, 0.15, 0.16
#: IoU of an object with the one it was put on, and the most it may have with any other.
_PARTNER_IOU, _STRANGER_IOU = (0.32, 0.55), 0.15
_ATTEMPTS = 60


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        name: of its image folder and annotation file.
        images: how many, at least 1.
        seed: of its scenes; parts with other seeds have nothing in common.
        classes: which of ``CLASSES`` occur, in the order of their category ids.
    """

    name: str
    images: int
    seed: int
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Shape:
    """An object of a scene.

    Attributes:
        label: index into ``CLASSES``.
        box: (x, y, w, h) in whole pixels: the first column and row, and how many.
        color: red, green, blue, 0 to 255.
    """

    label: int
    box: tuple[int, int, int, int]
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """What an image shows: objects, the first at the bottom, over a gradient between two colours."""

    shapes: tuple[Shape, ...]
    background: tuple[tuple[int, int, int], tuple[int, int, int]]


def scenes(split: Split) -> Iterator[Scene]:
    """Draw up the scenes of a split."""
    rng = _Rng(split.seed)
    labels = [CLASSES.index(name) for name in split.classes]
    for _ in range(split.images):
        yield _scene(rng, labels)


def render(scene: Scene) -> np.ndarray:
    """Return the image, [SIDE, SIDE, 3] uint8, red first."""
    top, bottom = (np.array(color, np.int64) for color in scene.background)
    rows = np.arange(SIDE)[:, None]
    column = (top * (SIDE - 1 - rows) + bottom * rows) // (SIDE - 1)  # [SIDE, 3]
    image = np.repeat(column[:, None], SIDE, axis=1)
    for shape in scene.shapes:
        x, y, w, h = shape.box
        inside = mask(shape)
        color, under = np.array(shape.color), image[y : y + h, x : x + w]
        under[inside] = (under[inside] * 3 + color * 7) // 10
        under[_outline(inside)] = color // 2
    return image.astype(np.uint8)


def mask(shape: Shape) -> np.ndarray:
    """Return which pixels of its box a shape covers, [h, w] bool; it touches all four sides."""
    _, _, w, h = shape.box
    # twice the distance of a pixel's centre from the middle of the box
    dx, dy = np.abs(2 * np.arange(w) + 1 - w)[None], np.abs(2 * np.arange(h) + 1 - h)[:, None]
    if CLASSES[shape.label] == "ellipse":
        return dx**2 * h**2 + dy**2 * w**2 <= w**2 * h**2
    if CLASSES[shape.label] == "triangle":
        return (dx - 1) * h <= w * np.arange(1, h + 1)[:, None]
    return np.ones((h, w), bool)


def iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Return the intersection over union of two boxes (x, y, w, h), in [0, 1]."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def write(folder: str | Path, splits: tuple[Split, ...]) -> None:
    """Write a data set: ``annotations/NAME.json`` and ``NAME/000001.png`` ... of every split.

    ``folder`` appears when all of it is complete. A killed run leaves a hidden folder beside it, which the next one
    removes.

    Raises:
        FileExistsError: if ``folder`` exists.
        OSError: if it cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"`{folder}` exists; expected the name of a new folder for the data set.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.shapes.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "annotations").mkdir(parents=True)
        for split in splits:
            _write_split(unfinished, split)
        os.sync()
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_split(folder: Path, split: Split) -> None:
    import cv2

    (folder / split.name).mkdir()
    images, annotations = [], []
    for number, scene in enumerate(scenes(split), 1):
        file_name = f"{number:06d}.png"
        encoded = cv2.imencode(".png", render(scene)[:, :, ::-1])[1]
        (folder / split.name / file_name).write_bytes(encoded.tobytes())
        images.append(dict(id=number, file_name=file_name, width=SIDE, height=SIDE))
        for shape in scene.shapes:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=split.classes.index(CLASSES[shape.label]) + 1,
                    bbox=list(shape.box),
                    area=shape.box[2] * shape.box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=at + 1, name=name) for at, name in enumerate(split.classes)]
    content = dict(
        info=dict(description=f"ddq-port shapes, {split.images} scenes of seed {split.seed}"),
        images=images,
        annotations=annotations,
        categories=categories,
    )
    (folder / "annotations" / f"{split.name}.json").write_text(json.dumps(content, sort_keys=True) + "\n")


class _Rng:
    """Whole random numbers from ``random()`` alone, whose sequence Python promises for good."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def whole(self, low: int, high: int) -> int:
        """Return a number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._random() < probability


def _scene(rng: _Rng, labels: Sequence[int]) -> Scene:
    background = tuple(tuple(rng.whole(10, 70) for _ in range(3)) for _ in range(2))
    if rng.chance(_EMPTY):
        return Scene((), background)
    wanted = rng.whole(7, 10) if rng.chance(_CROWDED) else rng.whole(2, 6)
    shapes: list[Shape] = []
    for _ in range(wanted):
        partner = shapes[rng.whole(0, len(shapes) - 1)] if shapes and rng.chance(_PARTNER) else None
        box = _place(rng, [shape.box for shape in shapes], partner and partner.box, wanted)
        if box is not None:
            near = {shape.color for shape in shapes if iou(shape.box, box) > 0}
            colors = [color for color in PALETTE if color not in near] or list(PALETTE)
            label = labels[rng.whole(0, len(labels) - 1)]
            shapes.append(Shape(label, box, colors[rng.whole(0, len(colors) - 1)]))
    # the larger ones lie below
    return Scene(tuple(sorted(shapes, key=lambda shape: -shape.box[2] * shape.box[3])), background)


def _place(
    rng: _Rng,
    others: list[tuple[int, int, int, int]],
    partner: tuple[int, int, int, int] | None,
    wanted: int,
) -> tuple[int, int, int, int] | None:
    """Find a box inside the image, on ``partner`` if there is one; None if none was found."""
    for _ in range(_ATTEMPTS):
        box = _random_box(rng, wanted) if partner is None else _box_on(rng, partner)
        if box[0] < 0 or box[1] < 0 or box[0] + box[2] > SIDE or box[1] + box[3] > SIDE:
            continue
        if partner is not None and not _PARTNER_IOU[0] <= iou(box, partner) <= _PARTNER_IOU[1]:
            continue
        if all(iou(box, other) <= _STRANGER_IOU for other in others if other != partner):
            return box
    return None


def _random_box(rng: _Rng, wanted: int) -> tuple[int, int, int, int]:
    """Return a box anywhere; no large ones in a crowd."""
    shortest, longest = _SIZES[rng.whole(0, 1 if wanted > 6 else 2)]
    w, h = rng.whole(shortest, longest), rng.whole(shortest, longest)
    return rng.whole(0, SIDE - w), rng.whole(0, SIDE - h), w, h


def _box_on(rng: _Rng, partner: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return a box of about the size and place of another."""
    x, y, w, h = partner
    new_w, new_h = max(_SIZES[0][0], w * rng.whole(70, 130) // 100), max(_SIZES[0][0], h * rng.whole(70, 130) // 100)
    return x + w * rng.whole(-50, 50) // 100, y + h * rng.whole(-50, 50) // 100, new_w, new_h


def _outline(inside: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask [h, w] with a side that is not covered."""
    padded = np.pad(inside, 1)
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~around
