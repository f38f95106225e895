"""Mend what is wrong with an annotation file where only one thing can be meant; the file itself stays as it is."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddq_port.data import annotation_file
from ddq_port.data.findings import Collector, is_number
from ddq_port.data.names import ImageFolder
from ddq_port.data.records import LARGEST_AREA, as_other_type, is_id
from legacy_adapters.ground.files import write_whole


@dataclass(frozen=True)
class Mended:
    """A mended annotation file.

    Attributes:
        content: of the new file.
        changes: what was changed, in lines; none if there was nothing to mend.
    """

    content: dict[str, Any]
    changes: tuple[str, ...]


class MendingError(Exception):
    """A mended file cannot be made."""


def mend(ann_file: Path, folder: Path | None = None) -> Mended | None:
    """Mend the content of an annotation file.

    Args:
        ann_file: its path.
        folder: of the images; without it names of files stay.

    Returns:
        None if the file cannot be read as COCO-format JSON.

    Raises:
        OSError: if it cannot be read at all.
        MendingError: if its encoding would have to be guessed.
    """
    decoded = annotation_file.decode(ann_file)
    original = annotation_file.load(ann_file, Collector(str(ann_file)))
    if original is None:
        return None
    if not decoded.certain:
        raise MendingError(f"The encoding of `{ann_file}` is not certain: {decoded.trouble}. --fix does not guess.")
    content = copy.deepcopy(original)
    changes = [*_encoding(decoded)]
    for change in (_numbers, _boxes, _whole_ids, _types_of_ids, _ids_of_annotations, _crowds, _areas):
        changes += change(content)
    if folder is not None:
        changes += _file_names(content, folder)
    return Mended(content, tuple(changes))


def write(content: dict[str, Any], out: Path) -> None:
    """Write an annotation file that is not there yet; it has its name when it is complete.

    Raises:
        MendingError: if there is a file of that name.
        OSError: if it cannot be written.
    """
    try:
        write_whole(out, json.dumps(content), replace=False)
    except FileExistsError as error:
        raise MendingError(f"`{out}` exists; --fix overwrites nothing, choose another name.") from error


def _listed(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = content.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _number(entries: int, name: str) -> str:
    singular = dict(images="image", annotations="annotation", categories="category")
    return f"1 {singular[name]}" if entries == 1 else f"{entries} {name}"


def _encoding(decoded: annotation_file.Decoded) -> Iterator[str]:
    if decoded.encoding == "utf-8-sig":
        yield "encoding: the byte order mark is left out"
    elif decoded.encoding != "utf-8":
        yield f"encoding: {decoded.encoding.upper()} is written as UTF-8"


def _numbers(content: dict[str, Any]) -> Iterator[str]:
    """Make numbers of text that is one, where a number is needed."""
    places = (("images", "width"), ("images", "height"), ("annotations", "area"), ("annotations", "iscrowd"))
    for name, key in (*places, ("annotations", "bbox")):
        changed = 0
        for entry in _listed(content, name):
            value = entry.get(key)
            number = [_number_of(part) for part in value] if isinstance(value, list) else _number_of(value)
            if number != value:
                entry[key] = number
                changed += 1
        if changed:
            yield f"{key}: numbers instead of text in {_number(changed, name)}"


def _number_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.strip().removeprefix("-").isdecimal() else float(value)
    except ValueError:
        return value


def _boxes(content: dict[str, Any]) -> Iterator[str]:
    """Draw the box around the polygons of an annotation that has none."""
    changed = 0
    for annotation in _listed(content, "annotations"):
        polygons = annotation.get("segmentation")
        if annotation.get("bbox") or not isinstance(polygons, list) or not polygons:
            continue
        if not all(isinstance(polygon, list) and all(map(is_number, polygon)) for polygon in polygons):
            continue
        xs, ys = ([value for polygon in polygons for value in polygon[start::2]] for start in (0, 1))
        if xs and ys:
            annotation["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            changed += 1
    if changed:
        yield f"bbox: around the polygons of {_number(changed, 'annotations')} without it"


def _whole_ids(content: dict[str, Any]) -> Iterator[str]:
    """Make 1 of 1.0."""
    places = (("images", "id"), ("categories", "id"), ("annotations", "id"))
    for name, key in (*places, ("annotations", "image_id"), ("annotations", "category_id")):
        changed = 0
        for entry in _listed(content, name):
            if isinstance(entry.get(key), float) and entry[key].is_integer():
                entry[key] = int(entry[key])
                changed += 1
        if changed:
            yield f"{key}: whole number instead of a float in {_number(changed, name)}"


def _types_of_ids(content: dict[str, Any]) -> Iterator[str]:
    """Refer to images and classes by ids of the type that they have."""
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in _listed(content, name) if is_id(entry.get("id"))}
        changed = 0
        for annotation in _listed(content, "annotations"):
            other = as_other_type(annotation.get(key))
            if other in known and annotation[key] not in known:
                annotation[key] = other
                changed += 1
        if changed:
            yield f"{key}: written as the ids of `{name}` are in {_number(changed, 'annotations')}"


def _ids_of_annotations(content: dict[str, Any]) -> Iterator[str]:
    """Give new ids to annotations without one, with id 0, with text, and with the id of an earlier one."""
    annotations = _listed(content, "annotations")
    numbers = [entry["id"] for entry in annotations if isinstance(entry.get("id"), int)]
    following = max([0, *numbers]) + 1
    seen: set[Any] = set()
    changed = []
    for annotation in annotations:
        key = annotation.get("id")
        if not is_id(key) or isinstance(key, str) or key == 0 or key in seen:
            annotation["id"] = following
            following += 1
            changed.append((key, annotation["id"]))
        seen.add(annotation["id"])
    if changed:
        before, after = changed[0]
        was = "none" if before is None else repr(before)
        yield f"id: a new one for {_number(len(changed), 'annotations')}, first {after} (it was {was})"


def _crowds(content: dict[str, Any]) -> Iterator[str]:
    changed = 0
    for annotation in _listed(content, "annotations"):
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
            changed += 1
    if changed:
        yield f"iscrowd: 0 for {_number(changed, 'annotations')} without it"


def _areas(content: dict[str, Any]) -> Iterator[str]:
    changed = 0
    for annotation in _listed(content, "annotations"):
        box = annotation.get("bbox")
        area = annotation.get("area")
        if is_number(area) and area <= LARGEST_AREA or not isinstance(box, list) or len(box) != 4:
            continue
        if all(map(is_number, box)):
            annotation["area"] = box[2] * box[3]
            changed += 1
    if changed:
        yield f"area: width x height of the box for {_number(changed, 'annotations')} without a usable one"


def _file_names(content: dict[str, Any], path: Path) -> Iterator[str]:
    folder = ImageFolder(path)
    changed = []
    for image in _listed(content, "images"):
        name = image.get("file_name")
        if not isinstance(name, str) or not name or (path / name).is_file():
            continue
        same = folder.same_name(name)
        if same is not None:
            image["file_name"] = same
            changed.append((name, same))
    if changed:
        before, after = changed[0]
        yield f"file_name: as the file is called for {_number(len(changed), 'images')}, first `{after}` for `{before}`"
