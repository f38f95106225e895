"""Tell data sets of other formats from COCO's, and name the way from there."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: supervision (PyPI) reads both and writes what `check-data` accepts; ids begin with 1.
_INSTALL = "pip install supervision"
_CONVERT = (
    'python -c "import supervision as sv; sv.DetectionDataset.{reader}({arguments})'
    """.as_coco(annotations_path='ann.json')\""""
)
_SMALL = 20_000_000  # bytes of JSON, read to see what it is
_ENTRIES = 2000  # of a folder that are looked at
_YOLO_LINE = re.compile(rb"\s*\d+(\s+[-+.\deE]+){4,}\s*$")
_JSON_FORMS = (
    ({"shapes", "imagePath"}, "one image's annotations by LabelMe; convert them all with `labelme2coco`"),
    ({"_via_img_metadata"}, "a project of the VGG Image Annotator; export the annotations as COCO there"),
    ({"features"}, "GeoJSON; export the annotations as COCO"),
)


def recognise(path: Path, images: Path | None = None) -> str | None:
    """Say in one line what a data set is and how to make it COCO's; None for what may be COCO's or is not there.

    Args:
        path: what was given as annotation file; a folder, too.
        images: the folder of images, if it is known.
    """
    if path.is_dir():
        return _folder(path, images)
    suffix = path.suffix.lower()
    if suffix not in (".xml", ".yaml", ".yml", ".txt", ".csv") or not path.is_file():
        return None
    if suffix == ".xml":
        return _xml(path, path, images)
    if suffix in (".yaml", ".yml"):
        return _yolo(path, images) if _is_description(path) else None
    if suffix == ".csv":
        return f"`{path}` is a table; expected an annotation file in COCO format (JSON)."
    return _yolo(path, images) if _is_yolo(path) else None


def json_form(content: Any) -> str | None:
    """Say what JSON of another format is; None if it is not known."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        keys = set(content[0])
        if {"image_id", "score", "bbox"} <= keys:
            return "this is a list of detections, not of annotations"
        if {"image", "annotations"} <= keys:
            return "this is Create ML's format; export the annotations as COCO"
        return None
    if not isinstance(content, dict):
        return None
    for keys, name in _JSON_FORMS:
        if keys <= content.keys():
            return f"this is {name}"
    annotations = content.get("annotations")
    if isinstance(annotations, list) and annotations and isinstance(annotations[0], dict):
        if "segments_info" in annotations[0]:
            return "these are panoptic segments, which have no boxes of their own; take the instances file"
    return None


def _folder(path: Path, images: Path | None) -> str:
    files = list(itertools.islice(_files(path), _ENTRIES))
    if any(_is_description(file) for file in files):
        return _yolo(path, images)
    for file in files:
        if file.suffix.lower() == ".xml" and (told := _xml(path, file, images)) is not None:
            return told
        if file.suffix.lower() == ".txt" and _is_yolo(file):
            return _yolo(path, images)
    found = sorted(file for file in files if file.suffix.lower() == ".json")
    form = _form_of(found[0]) if found else None
    if form is not None:
        return f"`{path}` is a folder of other files than COCO's; expected one annotation file. `{found[0]}`: {form}."
    hint = f", such as {found[0]}" if found else ""
    return f"`{path}` is a folder; expected an annotation file in COCO format{hint}."


def _form_of(file: Path) -> str | None:
    try:
        return json_form(json.loads(file.read_bytes())) if file.stat().st_size < _SMALL else None
    except (OSError, ValueError, RecursionError):
        return None


def _files(path: Path) -> Iterator[Path]:
    """Yield files below a folder, those of the folder itself first."""
    yield from sorted(entry for entry in path.iterdir() if entry.is_file())
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()):
        yield from _files(folder)


def _xml(path: Path, file: Path, images: Path | None) -> str | None:
    head = _head(file)
    if b"<annotations" in head:  # of all images; that of VOC is one `annotation`
        return f"`{path}` is in CVAT's format; expected COCO format. Export it from CVAT anew, as `COCO 1.0`."
    return _voc(path, file.parent, images) if b"<annotation" in head else None


def _voc(path: Path, annotations: Path, images: Path | None) -> str:
    beside = annotations.parent / "JPEGImages", annotations.parent / "images"
    folder = images or next((folder for folder in beside if folder.is_dir()), "IMAGES")
    return _line(path, "Pascal VOC", "from_pascal_voc", str(folder), str(annotations))


def _yolo(path: Path, images: Path | None) -> str:
    """Look for the description, the labels and the images as Ultralytics lays them out, from `path` upwards."""
    around = [path, *path.parents[:3]]
    description = next((file for folder in around for file in _descriptions(folder)), "data.yaml")
    roots = [folder / name for folder in around for name in ("labels", "train/labels")]
    labels = next((folder for folder in roots if folder.is_dir()), None)
    if labels is None:
        labels = path if path.is_dir() else path.parent
    elif path.is_dir() and path != labels and labels in path.parents:
        images, labels = images or labels.parent / "images" / path.relative_to(labels), path
    else:
        split = next((entry.name for entry in sorted(labels.iterdir()) if entry.is_dir()), "")
        images, labels = images or labels.parent / "images" / split, labels / split
    return _line(path, "YOLO", "from_yolo", str(images or "IMAGES"), str(labels), str(description))


def _descriptions(folder: Path) -> list[Path]:
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if folder.is_dir() else []
    return [file for file in found if _is_description(file)]


def _line(path: Path, form: str, reader: str, *arguments: str) -> str:
    command = _CONVERT.format(reader=reader, arguments=", ".join(map(repr, arguments)))
    return f"`{path}` is in {form} format; expected COCO format. To convert it: `{_INSTALL}`, then `{command}`."


def _is_description(file: Path) -> bool:
    yaml = file.suffix.lower() in (".yaml", ".yml")
    return yaml and bool(re.search(rb"(?m)^\s*(names|nc|train)\s*:", _head(file)))


def _is_yolo(file: Path) -> bool:
    lines = [line for line in _head(file).splitlines()[:3] if line.strip()]
    return bool(lines) and all(_YOLO_LINE.match(line) for line in lines)


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(4096)
    except OSError:
        return b""
