"""Check the entries of an annotation file one by one: ids, fields, boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddq_port.data.boxes import PlacedBox, other_form
from ddq_port.data.findings import Collector, is_number, kind_of, listed, short

_SLACK = 1.0  # pixels by which a box may reach out of its image: annotation tools round
LARGEST_AREA = 1e10  # pixels; pycocotools' own limit
_SINGULAR = dict(images="image", annotations="annotation", categories="category")
_PLURAL = dict(image="images", category="categories")
Entry = dict[str, Any]


@dataclass
class Records:
    """The usable entries of an annotation file.

    Attributes:
        images: by id.
        names: of the classes by id, in the order of their labels.
        annotations: how many there are, usable or not.
        of_class: objects to train on, by id of the class.
        of_image: objects to train on, by id of the image.
    """

    images: dict[Any, Entry] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)
    annotations: int = 0
    of_class: Counter[Any] = field(default_factory=Counter)
    of_image: Counter[Any] = field(default_factory=Counter)


def check(content: Entry, classes: Sequence[str] | None, found: Collector) -> Records:
    """Check all entries.

    Args:
        content: of the annotation file.
        classes: names that a config expects, in the order of labels; None expects nothing.
        found: is given what is wrong.
    """
    images = {image["id"]: image for image in _entries(content, "images", found)}
    listed_annotations = _list(content, "annotations", found)
    categories = _entries(content, "categories", found)
    names = _check_categories(categories, classes, found)
    _check_image_entries(images.values(), found)
    records = Records(images, names, len(listed_annotations))
    annotations = [
        (annotation, _place(annotation, number))
        for number, annotation in enumerate(listed_annotations)
        if _is_entry(annotation, "annotations", number, found)
    ]
    _check_ids(annotations, found)
    placed: list[PlacedBox] = []
    ignored: Counter[Any] = Counter()
    for annotation, where in annotations:
        _check_annotation(annotation, where, records, placed, ignored, found)
    _check_form(placed, found)
    _check_twins(annotations, found)
    _check_classes_of_objects(records, ignored, {category["id"]: category for category in categories}, found)
    return records


def _list(content: Entry, name: str, found: Collector) -> list[Any]:
    entries = content.get(name)
    if isinstance(entries, list):
        if not entries:
            found.add("empty", "", f"`{name}` is empty")
        return entries
    hint = ""
    if name == "annotations" and name not in content and isinstance(content.get("images"), list):
        hint = "; one cannot train or evaluate on a test set without annotations"
    found.add("unreadable", "", f"expected a list `{name}`, found {kind_of(entries)}{hint}")
    return []


def _is_entry(entry: Any, name: str, number: int, found: Collector) -> bool:
    if isinstance(entry, dict):
        return True
    found.add("malformed", f"{name}[{number}]", f"expected an entry with an id, found {short(entry)}")
    return False


def _place(annotation: Any, number: int) -> str:
    """Return how to name an annotation: by its id, or by its place if it has none that can be read."""
    key = annotation.get("id") if isinstance(annotation, dict) else None
    return f"annotations[{number}]" if key is None or isinstance(key, (bool, list, dict)) else f"annotation {key}"


def _entries(content: Entry, name: str, found: Collector) -> list[Entry]:
    """Return the usable images or categories, each with an id of its own."""
    entries: dict[Any, Entry] = {}
    floats = []
    for place, entry in enumerate(_list(content, name, found)):
        if not _is_entry(entry, name, place, found):
            continue
        key = entry.get("id")
        if not is_id(key):
            found.add("malformed", f"{name}[{place}]", f"expected an entry with an id, found {short(entry)}")
        elif key in entries:
            found.add("duplicate-id", f"{_SINGULAR[name]} {key}", f"{name}[{place}] has the id of an earlier one")
        else:
            entries[key] = entry
        floats.append(key)
    _tell_floats(floats, f"{name} have a float as id", found)
    texts = [key for key in entries if isinstance(key, str)]
    if texts and len(texts) < len(entries):
        found.add("mixed-ids", "", f"{len(texts)} of {len(entries)} ids of `{name}` are text, first {short(texts[0])}")
    return list(entries.values())


def is_id(key: Any) -> bool:
    """Tell whether a value can be the id of an entry: a number or text."""
    if isinstance(key, float):
        return math.isfinite(key)
    return isinstance(key, (int, str)) and not isinstance(key, bool)


def _tell_floats(keys: list[Any], whose: str, found: Collector) -> None:
    floats = [key for key in keys if isinstance(key, float) and key.is_integer()]
    if floats:
        found.add("float-id", "", f"{len(floats)} {whose}, first {short(floats[0])}")


def _check_ids(annotations: list[tuple[Entry, str]], found: Collector) -> None:
    """Check ids of annotations, to which nothing refers, but which pycocotools marks what it found with."""
    seen: set[Any] = set()
    floats = []
    for annotation, where in annotations:
        key = annotation.get("id")
        if not is_id(key):
            found.add("no-id", where, f"expected an id, found {short(key)}")
        elif key in seen:
            found.add("duplicate-id", where, "an earlier one has this id")
        elif isinstance(key, str) and not _is_decimal(key):
            found.add("text-id", where, f"expected a number as id, found {short(key)}")
        elif _is_zero(key):
            found.add("zero-id", where, "expected an id other than 0")
        floats.append(key)
        if is_id(key):
            seen.add(key)
    _tell_floats(floats, "annotations have a float as id", found)
    for name in ("image_id", "category_id"):
        references = [annotation.get(name) for annotation, _ in annotations]
        _tell_floats(references, f"annotations have a float as {name}", found)


def _is_zero(key: Any) -> bool:
    return float(key) == 0 if isinstance(key, str) else key == 0


def _is_decimal(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_categories(categories: list[Entry], classes: Sequence[str] | None, found: Collector) -> dict[Any, str]:
    """Return the names of the classes by id, in the order of their labels."""
    names: dict[Any, str] = {}
    for category in categories:
        where, name = f"category {category['id']}", category.get("name")
        if not isinstance(name, str):
            found.add("malformed", where, f"expected a name, found {short(name)}")
            continue
        if name in names.values():
            found.add("duplicate-class", where, f"another class is named `{name}`, too")
        names[category["id"]] = name
    numbers = sorted(key for key in names if isinstance(key, (int, float)))
    for before, after in zip(numbers, numbers[1:]):
        if after - before > 1:
            found.add(
                "id-gap", f"category {after}", f"the id before is {before}, the label is {list(names).index(after)}"
            )
    if classes is not None:
        _check_classes(list(names.values()), list(classes), found)
    return names


def _check_classes(names: list[str], classes: list[str], found: Collector) -> None:
    absent = [name for name in classes if name not in names]
    surplus = [name for name in names if name not in classes]
    if absent:
        found.add("classes", "", f"the config's {listed(absent)} are not in the file, which has {listed(names)}")
    elif classes != [name for name in names if name in classes]:
        found.add("classes", "", f"expected the file's order, {listed(names)}; the config has {listed(classes)}")
    elif surplus:
        found.add("surplus-class", "", f"the config leaves {listed(surplus)} out")


def _check_image_entries(images: Collection[Entry], found: Collector) -> None:
    files: dict[str, Any] = {}
    for image in images:
        where, name = f"image {image['id']}", image.get("file_name")
        for side in ("width", "height"):
            if not is_number(image.get(side)) or image[side] < 1:
                found.add("bad-size", where, f"expected a {side} of at least 1, found {short(image.get(side))}")
        if not isinstance(name, str) or not name:
            found.add("malformed", where, f"expected a file_name, found {short(name)}")
        elif name in files:
            found.add("duplicate-file", where, f"`{name}` is the file of image {files[name]}, too")
        else:
            files[name] = image["id"]


def _check_annotation(
    annotation: Entry, where: str, records: Records, placed: list[PlacedBox], ignored: Counter[Any], found: Collector
) -> None:
    """Check one annotation, and count it if it is an object to train on.

    That is one of an image and a class, no crowd, without `ignore`, with a box of some area.
    """
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    # without any image or class, one sentence about the missing list says it
    known_image = bool(records.images) and _check_reference(image_id, records.images, "image", where, found)
    known_class = bool(records.names) and _check_reference(category_id, records.names, "category", where, found)
    crowd = _check_crowd(annotation, where, image_id, found)
    area = annotation.get("area")
    if not is_number(area):
        found.add("area-missing", where, f"expected a number as area, found {short(area)}")
    elif area > LARGEST_AREA:
        found.add("area-range", where, f"expected an area of at most {LARGEST_AREA:.0e} pixels, found {short(area)}")
    usable = _check_box(annotation, records.images[image_id] if known_image else None, where, placed, found)
    if annotation.get("ignore"):
        found.add("ignored", where, f"ignore {short(annotation['ignore'])}")
        if known_class and not crowd:
            ignored[category_id] += 1
    elif known_image and known_class and usable and not crowd:
        records.of_class[category_id] += 1
        records.of_image[image_id] += 1


def _check_reference(key: Any, known: Collection[Any], what: str, where: str, found: Collector) -> bool:
    if is_id(key) and key in known:
        return True
    other = as_other_type(key)
    if other is not None and other in known:
        found.add("id-type", where, f"{what}_id is {short(key)}, the id in the list is {short(other)}")
    else:
        found.add(f"unknown-{what}", where, f"expected the id of one of the {_PLURAL[what]}, found {short(key)}")
    return False


def as_other_type(key: Any) -> Any:
    """Return the number that a text means, or the text of a number; None for other values."""
    if isinstance(key, str):
        return int(key) if key.strip().removeprefix("-").isdecimal() else None
    if isinstance(key, float) and key.is_integer():
        return str(int(key))
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else None


def _check_crowd(annotation: Entry, where: str, image_id: Any, found: Collector) -> bool:
    if "iscrowd" not in annotation:
        found.add("crowd-missing", where, "expected iscrowd 0 or 1, found nothing")
        return False
    crowd = annotation["iscrowd"]
    if crowd is None:
        found.add("crowd-missing", where, "expected iscrowd 0 or 1, found nothing")
    elif crowd not in (0, 1):
        found.add("bad-crowd", where, f"expected iscrowd 0 or 1, found {short(crowd)}")
    elif crowd:
        found.add("crowd", where, f"a crowd in image {short(image_id)}")
    return bool(crowd)


def _check_box(annotation: Entry, image: Entry | None, where: str, placed: list[PlacedBox], found: Collector) -> bool:
    """Return whether a training would take the box."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        found.add("bad-box", where, f"expected a bbox [x, y, width, height], found {short(box)}")
        return False
    x, y, w, h = box
    area = annotation.get("area")
    usable = w >= 1 and h >= 1 and not (is_number(area) and area <= 0)
    if w == 0 or h == 0 or (is_number(area) and area <= 0):
        found.add("no-area", where, f"bbox {short(box)}, area {short(area)}")
    elif w < 1 or h < 1:
        found.add("thin", where, f"bbox {short(box)}")
    if image is None or not all(is_number(image.get(side)) and image[side] > 0 for side in ("width", "height")):
        return usable
    width, height = image["width"], image["height"]
    placed.append(PlacedBox((x, y, w, h), (width, height)))
    inside = f"image {image['id']} has {width} x {height} pixels"
    if x >= width or y >= height or x + w <= 0 and w or y + h <= 0 and h:
        found.add("outside", where, f"bbox {short(box)} lies outside, {inside}")
        return False
    if min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
        found.add("beyond-edge", where, f"bbox {short(box)} reaches out, {inside}")
    return usable


def _check_form(placed: list[PlacedBox], found: Collector) -> None:
    form = other_form(placed)
    if form is not None:
        found.add("box-form", "", form)


def _check_twins(annotations: list[tuple[Entry, str]], found: Collector) -> None:
    seen: dict[Any, str] = {}
    for annotation, where in annotations:
        box = annotation.get("bbox")
        if not isinstance(box, list) or not all(map(is_number, box)) or annotation.get("iscrowd"):
            continue
        key = repr((annotation.get("image_id"), annotation.get("category_id"), box))
        if key in seen:
            found.add("duplicate-box", where, f"the same as {seen[key]}")
        else:
            seen[key] = where


def _check_classes_of_objects(
    records: Records, ignored: Counter[Any], categories: dict[Any, Entry], found: Collector
) -> None:
    if not records.annotations:
        return
    if not records.of_image:
        found.add("empty", "", "`annotations` has nothing to train on")
    for category_id, name in records.names.items():
        if records.of_class[category_id] or not records.of_image and not ignored[category_id]:
            continue
        where = f"category {category_id}"
        if ignored[category_id]:
            number = ignored[category_id]
            found.add("ignored-class", where, f"all {number} objects of class `{name}` have `ignore`")
        else:
            placeholder = category_id == 0 and categories[category_id].get("supercategory") == "none"
            hint = (
                "; Roboflow writes such a placeholder; remove it from `categories` of all sets" if placeholder else ""
            )
            found.add("unused-class", where, f"class `{name}` has no object{hint}")
