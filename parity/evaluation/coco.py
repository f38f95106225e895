"""A data set in COCO's format: its images, its classes, and the AP of detections in it."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddq_port.data.classes import listed, repeated, resembling
from legacy_adapters.ground.words import counted

#: The numbers of COCO's summary that are told, by their place in it.
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "AP small": 3, "AP medium": 4, "AP large": 5}


class BadSetError(Exception):
    """A data set that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        id: in the annotation file.
        file: path of the image.
    """

    id: int
    file: Path


@dataclass(frozen=True)
class ImageSet:
    """Images and what is in them.

    Attributes:
        ann_file: annotation file.
        images: those that are used.
        categories: (id, name) in the order of the file.
        content: the annotation file as it was read.
    """

    ann_file: Path
    images: tuple[Image, ...]
    categories: tuple[tuple[int, str], ...]
    content: dict[str, Any]

    def category_ids(self, classes: Sequence[str] | None, count: int) -> tuple[int, ...]:
        """Return the category that each label of a detector stands for.

        Args:
            classes: names of the detector's classes, in order; None if they are not known. Then labels stand for
                categories in the order of the file, as in mmdet's ``CocoDataset``.
            count: how many classes the detector has.

        Raises:
            BadSetError: if the classes are not those of the file.
        """
        names = [name for _, name in self.categories]
        if len(names) != count:
            raise BadSetError(
                f"{self.ann_file} has {len(names)} categories and the model {counted(count, 'class')}; its categories are "
                f"{listed(names)}. Pass data of the model's classes, or another --variant."
            )
        if classes is None:
            return tuple(number for number, _ in self.categories)
        twice = repeated(names)
        if twice is not None:
            raise BadSetError(f"{self.ann_file} has the category `{twice}` twice; expected every name once.")
        if len(classes) != count:
            raise BadSetError(
                f"The checkpoint names {counted(len(classes), 'class')} ({listed(classes)}) and the model has {count}; expected "
                "as many. Convert it with `ddq-convert convert --num-classes` and the right --class-map."
            )
        missing = [name for name in classes if name not in names]
        if missing:
            alike = resembling(missing[0], names)
            raise BadSetError(
                f"{self.ann_file} has no category `{missing[0]}`, which is a class of the checkpoint; it has "
                f"{alike or listed(names)}. Pass data of the classes that the checkpoint was trained for."
            )
        by_name = {name: number for number, name in self.categories}
        return tuple(by_name[name] for name in classes)


def load(ann_file: Path, folder: Path, limit: int | None) -> ImageSet:
    """Read an annotation file and look for its images.

    Args:
        ann_file: JSON with ``images``, ``annotations`` and ``categories``.
        folder: that image files are named in.
        limit: take so many images, the first ones of the file; None for all.

    Raises:
        BadSetError: if something is missing.
        OSError: if the file cannot be read.
    """
    try:
        content = json.loads(ann_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadSetError(f"{ann_file} is not JSON: {error}.") from error
    wanted = {
        "images": ("id", "file_name"),
        "categories": ("id", "name"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    }
    for part, names in wanted.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise BadSetError(f"{ann_file} has no list `{part}`; expected a data set in COCO's format.")
        for place, row in enumerate(rows):
            lacking = [name for name in names if not isinstance(row, dict) or name not in row]
            if lacking:
                raise BadSetError(f"{part}[{place}] of {ann_file} has no `{lacking[0]}`.")
    images = tuple(Image(row["id"], folder / str(row["file_name"])) for row in content["images"][:limit])
    if not images:
        raise BadSetError(f"{ann_file} has no images.")
    if len({image.id for image in images}) < len(images):
        raise BadSetError(f"{ann_file} has images of one and the same id.")
    for image in images:
        if not image.file.is_file():
            raise BadSetError(f"Image {image.id} of {ann_file} is not there: {image.file} is no file.")
    categories = tuple((row["id"], str(row["name"])) for row in content["categories"])
    return ImageSet(ann_file, images, categories, content)


def average_precision(images: ImageSet, detections: np.ndarray) -> dict[str, float | None] | None:
    """Return COCO's summary of detections in the images that are used.

    Args:
        images: with their objects.
        detections: [n, 7] of image id, left, top, width, height in pixels, score, category id.

    Returns:
        Every number of :data:`STATS` in [0, 1]; None for a number that no object counts for. None without objects.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    used = {image.id for image in images.images}
    annotations = [row for row in images.content["annotations"] if row["image_id"] in used]
    if not annotations:
        return None
    if not len(detections):
        return {name: 0.0 for name in STATS}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [row for row in images.content["images"] if row["id"] in used],
            "categories": images.content["categories"],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools gives -1 where there is no object of a size
    stats = {name: float(evaluation.stats[place]) for name, place in STATS.items()}
    return {name: value if math.isfinite(value) and value >= 0 else None for name, value in stats.items()}
