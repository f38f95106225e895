"""Look for what is wrong in a COCO-format data set before a training finds it, or worse, does not.

The rules follow what mmdet 3.3.0's ``CocoDataset`` does with such data. An *error* makes a training crash or learn
something wrong; a *warning* is left out of the training or cannot be learnt, as the two boxes without height in COCO's
own train2017; a *note* is in order and good to know.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"

#: What may be found: how grave it is, and what it means for a training.
KINDS = {
    "unreadable": (ERROR, "the annotation file is not COCO-format JSON"),
    "empty": (ERROR, "there is nothing to train on"),
    "malformed": (ERROR, "an entry lacks a field or has one of another type"),
    "duplicate-id": (ERROR, "of entries with one id all but the last are lost"),
    "duplicate-class": (ERROR, "classes of one name cannot be told apart"),
    "classes": (ERROR, "mmdet leaves out what has another name, and labels classes in the file's order"),
    "unknown-image": (ERROR, "an annotation of no image of this file"),
    "unknown-category": (ERROR, "an annotation of no class of this file"),
    "missing-image": (ERROR, "the training crashes when it reads that image"),
    "unreadable-image": (ERROR, "the training crashes when it reads that image"),
    "image-size": (ERROR, "the image has another size than its annotations were made for"),
    "outside": (ERROR, "a box has no pixel in common with its image"),
    "beyond-edge": (WARNING, "a box reaches out of its image, where no prediction goes"),
    "no-area": (WARNING, "a box without area is left out of the training, but counts in the evaluation"),
    "thin": (WARNING, "a box of less than a pixel is left out of the training, but counts in the evaluation"),
    "duplicate-file": (WARNING, "one image file stands for several images"),
    "surplus-class": (WARNING, "a class that the config does not have is left out"),
    "unused-class": (WARNING, "a class without objects cannot be learnt"),
    "id-gap": (NOTE, "the label of a class is its place in the list, not its id"),
    "crowd": (NOTE, "crowds are not trained on, and the evaluation forgives detections on them"),
}
#: Of each kind so many are listed; all are counted.
MOST_LISTED = 100
_SLACK = 1.0  # pixels by which a box may reach out of its image: annotation tools round


@dataclass(frozen=True)
class Problem:
    """One thing that was found.

    Attributes:
        kind: a key of ``KINDS``.
        file: the annotation file, or the image.
        where: ``'annotation 17'``, ``'image 3'``, ``'category 2'`` with their ids, or ``''`` for the whole file.
        text: what was expected and found.
    """

    kind: str
    file: str
    where: str
    text: str

    @property
    def severity(self) -> str:
        """``'error'``, ``'warning'`` or ``'note'``."""
        return KINDS[self.kind][0]

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.text}" if self.where else f"{self.file}: {self.text}"


@dataclass(frozen=True)
class Findings:
    """What a data set holds and what is wrong with it.

    Attributes:
        ann_file: the annotation file.
        images: how many images it lists.
        without_objects: how many of them have no annotation.
        annotations: how many annotations it lists, crowds included.
        objects: annotations of each class, by its name, in the file's order, which is that of the labels.
        counts: how many problems of each kind were found.
        problems: the first ``MOST_LISTED`` of each kind.
    """

    ann_file: str
    images: int = 0
    without_objects: int = 0
    annotations: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def count(self, severity: str) -> int:
        """Return how many problems of a severity were found."""
        return sum(number for kind, number in self.counts.items() if KINDS[kind][0] == severity)

    @property
    def ok(self) -> bool:
        """Tell whether there is no error."""
        return self.count(ERROR) == 0

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their labels: what a config's ``metainfo.classes`` must be."""
        return tuple(self.objects)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        problems = [dict(asdict(problem), severity=problem.severity) for problem in self.problems]
        counts = {severity: self.count(severity) for severity in (ERROR, WARNING, NOTE)}
        return dict(asdict(self), problems=problems, severities=counts, ok=self.ok)


def check(
    ann_file: str | Path,
    image_folder: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    read_images: bool = True,
) -> Findings:
    """Check an annotation file and the images it names.

    Args:
        ann_file: JSON with ``images``, ``annotations`` and ``categories``.
        image_folder: what file names are relative to; None leaves the images out.
        classes: names that a config expects (``metainfo.classes``), in the order of labels; None expects nothing.
        read_images: read the header of every image for its size; otherwise only ask whether the file is there.

    Returns:
        Everything that was found; nothing is raised for bad data.

    Raises:
        OSError: if ``ann_file`` cannot be read at all.
    """
    found = _Found(str(ann_file))
    content = _load(Path(ann_file), found)
    if content is None:
        return found.findings()
    images = _entries(content, "images", found)
    annotations = _entries(content, "annotations", found)
    categories = _entries(content, "categories", found)
    by_id = {image["id"]: image for image in images}
    names = _check_categories(categories, classes, found)
    _check_image_entries(images, found)
    of_class, of_image = Counter(), set()
    for annotation in annotations:
        if _check_annotation(annotation, by_id, names, found):
            of_class[annotation["category_id"]] += 1
            of_image.add(annotation["image_id"])
    for category_id, name in names.items():
        if annotations and not of_class[category_id]:
            found.add("unused-class", f"category {category_id}", f"class `{name}` has no object")
    if image_folder is not None:
        _check_files(images, Path(image_folder), read_images, found)
    return found.findings(
        images=len(images),
        without_objects=sum(image_id not in of_image for image_id in by_id),
        annotations=len(annotations),
        objects={name: of_class[category_id] for category_id, name in names.items()},
    )


class _Found:
    """Collects problems."""

    def __init__(self, ann_file: str) -> None:
        self.ann_file = ann_file
        self.counts: Counter[str] = Counter()
        self.problems: list[Problem] = []

    def add(self, kind: str, where: str, text: str, file: str | None = None) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= MOST_LISTED:
            self.problems.append(Problem(kind, file or self.ann_file, where, text))

    def findings(self, **numbers: Any) -> Findings:
        order = list(KINDS)
        problems = sorted(self.problems, key=lambda problem: order.index(problem.kind))
        return Findings(self.ann_file, counts=dict(self.counts), problems=tuple(problems), **numbers)


def _load(path: Path, found: _Found) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        found.add("unreadable", f"line {error.lineno}, column {error.colno}", f"this is no JSON: {error.msg}")
    except (UnicodeDecodeError, RecursionError) as error:
        found.add("unreadable", "", f"this is no JSON: {error}")
    else:
        if isinstance(content, dict):
            return content
        found.add(
            "unreadable", "", f"expected an object with images, annotations and categories, found {_kind(content)}"
        )
    return None


def _entries(content: dict[str, Any], name: str, found: _Found) -> list[dict[str, Any]]:
    """Return the usable entries of a list, each with an id of its own."""
    listed = content.get(name)
    if not isinstance(listed, list):
        found.add("unreadable", "", f"expected a list `{name}`, found {_kind(listed)}")
        return []
    if not listed:
        found.add("empty", "", f"`{name}` is empty")
    entries: dict[Any, dict[str, Any]] = {}
    for place, entry in enumerate(listed):
        key = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            found.add("malformed", f"{name}[{place}]", f"expected an entry with an id, found {_short(entry)}")
        elif key in entries:
            found.add("duplicate-id", f"{_SINGULAR[name]} {key}", f"{name}[{place}] has the id of an earlier one")
        else:
            entries[key] = entry
    return list(entries.values())


_SINGULAR = dict(images="image", annotations="annotation", categories="category")


def _check_categories(categories: list[dict[str, Any]], classes: Sequence[str] | None, found: _Found) -> dict[Any, str]:
    """Return the names of the classes by id, in the order of their labels."""
    names: dict[Any, str] = {}
    for category in categories:
        where, name = f"category {category['id']}", category.get("name")
        if not isinstance(name, str):
            found.add("malformed", where, f"expected a name, found {_short(name)}")
            continue
        if name in names.values():
            found.add("duplicate-class", where, f"another class is named `{name}`, too")
        names[category["id"]] = name
    numbers = sorted(key for key in names if isinstance(key, int))
    for before, after in zip(numbers, numbers[1:]):
        if after - before > 1:
            found.add(
                "id-gap", f"category {after}", f"the id before is {before}, the label is {list(names).index(after)}"
            )
    if classes is not None:
        _check_classes(list(names.values()), list(classes), found)
    return names


def _check_classes(names: list[str], classes: list[str], found: _Found) -> None:
    absent = [name for name in classes if name not in names]
    surplus = [name for name in names if name not in classes]
    if absent:
        found.add("classes", "", f"the config's {_listed(absent)} are not in the file, which has {_listed(names)}")
    elif classes != [name for name in names if name in classes]:
        found.add("classes", "", f"expected the file's order, {_listed(names)}; the config has {_listed(classes)}")
    elif surplus:
        found.add("surplus-class", "", f"the config leaves {_listed(surplus)} out")


def _check_image_entries(images: list[dict[str, Any]], found: _Found) -> None:
    files: dict[str, Any] = {}
    for image in images:
        where, name = f"image {image['id']}", image.get("file_name")
        for side in ("width", "height"):
            if not _is_number(image.get(side)) or image[side] < 1:
                found.add("malformed", where, f"expected a {side} of at least 1, found {_short(image.get(side))}")
        if not isinstance(name, str) or not name:
            found.add("malformed", where, f"expected a file_name, found {_short(name)}")
        elif name in files:
            found.add("duplicate-file", where, f"`{name}` is the file of image {files[name]}, too")
        else:
            files[name] = image["id"]


def _check_annotation(
    annotation: dict[str, Any], images: dict[Any, dict[str, Any]], categories: Collection[Any], found: _Found
) -> bool:
    """Return whether it belongs to an image and a class."""
    where = f"annotation {annotation['id']}"
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    known_image, known_class = _among(image_id, images), _among(category_id, categories)
    if not known_image:
        found.add("unknown-image", where, f"no image has the id {_short(image_id)}")
    if not known_class:
        found.add("unknown-category", where, f"no category has the id {_short(category_id)}")
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        found.add("malformed", where, f"expected iscrowd 0 or 1, found {_short(crowd)}")
    elif crowd:
        found.add("crowd", where, f"a crowd in image {_short(image_id)}")
    if not _is_number(annotation.get("area")):
        found.add("malformed", where, f"expected a number as area, found {_short(annotation.get('area'))}")
    _check_box(annotation, images[image_id] if known_image else None, where, found)
    return known_image and known_class


def _check_box(annotation: dict[str, Any], image: dict[str, Any] | None, where: str, found: _Found) -> None:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        found.add("malformed", where, f"expected a bbox [x, y, width, height], found {_short(box)}")
        return
    x, y, w, h = box
    area = annotation.get("area")
    if w == 0 or h == 0 or (_is_number(area) and area <= 0):
        found.add("no-area", where, f"bbox {_short(box)}, area {_short(area)}")
    elif w < 1 or h < 1:
        found.add("thin", where, f"bbox {_short(box)}")
    if image is None or not all(_is_number(image.get(side)) for side in ("width", "height")):
        return
    width, height = image["width"], image["height"]
    inside = f"image {image['id']} has {width} x {height} pixels"
    if x >= width or y >= height or x + w <= 0 and w or y + h <= 0 and h:
        found.add("outside", where, f"bbox {_short(box)} lies outside, {inside}")
    elif min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
        found.add("beyond-edge", where, f"bbox {_short(box)} reaches out, {inside}")


def _check_files(images: Iterable[dict[str, Any]], folder: Path, read_images: bool, found: _Found) -> None:
    for image, path in _named_files(images, folder):
        where = f"image {image['id']}"
        if not path.is_file():
            found.add("missing-image", where, "there is no such file", str(path))
        elif read_images:
            _check_size(image, path, where, found)


def _named_files(images: Iterable[dict[str, Any]], folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    for image in images:
        if isinstance(image.get("file_name"), str) and image["file_name"]:
            yield image, folder / image["file_name"]


def _check_size(image: dict[str, Any], path: Path, where: str, found: _Found) -> None:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            size, turned = opened.size, opened.getexif().get(_EXIF_ORIENTATION, 1) >= _FIRST_TURNED
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        found.add("unreadable-image", where, f"this is no image: {error}", str(path))
        return
    # OpenCV, which mmdet reads with, turns an image as its EXIF data say
    width, height = size[::-1] if turned else size
    if (image.get("width"), image.get("height")) != (width, height):
        how = " after turning it as its EXIF data say" if turned else ""
        expected = f"{_short(image.get('width'))} x {_short(image.get('height'))}"
        found.add(
            "image-size", where, f"the annotations say {expected}, the file has {width} x {height}{how}", str(path)
        )


_EXIF_ORIENTATION, _FIRST_TURNED = 274, 5


def _among(key: Any, known: Collection[Any]) -> bool:
    return isinstance(key, (int, str)) and key in known


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
