"""Draw detections beside the truth, for the eye."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddq_port.labels import color_of, placed
from legacy_adapters.ground.files import write_whole

_WIDTH, _GAP, _HEADER = 512, 16, 28  # pixels
_PAIRS_PER_ROW = 2
_FONT, _TITLE, _MARGIN = 0.55, 0.6, 4  # two sizes of OpenCV's font, pixels around a label


def draw(
    ann_file: str | Path,
    images: str | Path,
    predictions: str | Path,
    file: str | Path,
    count: int = 8,
    min_score: float = 0.3,
) -> None:
    """Draw the first images of an annotation file twice, with the true boxes and with the detections.

    Args:
        ann_file: annotations in COCO format.
        images: the folder of the images.
        predictions: detections as COCO's evaluation takes them: a JSON list of image_id, category_id, bbox, score.
        file: PNG file to write.
        count: at most so many images.
        min_score: weaker detections are left out.

    Raises:
        OSError: if a file cannot be read or written.
    """
    import cv2

    content = json.loads(Path(ann_file).read_text())
    truth, found = _by_image(content["annotations"]), _by_image(json.loads(Path(predictions).read_text()))
    names = {category["id"]: (at, category["name"]) for at, category in enumerate(content["categories"])}
    pairs = []
    for image in content["images"][:count]:
        path = str(Path(images, image["file_name"]))
        pixels = cv2.imread(path)
        if pixels is None:
            raise OSError(f"Cannot read the image `{path}`.")
        strong = [entry for entry in found[image["id"]] if entry["score"] >= min_score]
        left = _panel(pixels, truth[image["id"]], names, f"truth, {image['file_name']}")
        right = _panel(pixels, sorted(strong, key=lambda entry: -entry["score"]), names, f"score >= {min_score:g}")
        pairs.append(_beside([left, right]))
    rows = [_beside(pairs[at : at + _PAIRS_PER_ROW], 2 * _GAP) for at in range(0, len(pairs), _PAIRS_PER_ROW)]
    write_whole(file, cv2.imencode(".png", _above(rows))[1].tobytes())


def _by_image(entries: Sequence[Mapping[str, Any]]) -> Mapping[Any, list[Mapping[str, Any]]]:
    found = defaultdict(list)
    for entry in entries:
        found[entry["image_id"]].append(entry)
    return found


def _panel(
    pixels: np.ndarray, entries: Sequence[Mapping[str, Any]], names: Mapping[Any, tuple[int, str]], title: str
) -> np.ndarray:
    """Return the image, enlarged, with its boxes: [h, w, 3], blue first."""
    import cv2

    scale = _WIDTH / pixels.shape[1]
    size = (_WIDTH, round(pixels.shape[0] * scale))
    panel = cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    labels = []
    for entry in entries:
        label, name = names[entry["category_id"]]
        x, y, w, h = (value * scale for value in entry["bbox"])
        color = color_of(label)[::-1]  # blue first
        cv2.rectangle(panel, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1), color, 2, cv2.LINE_AA)
        text = f"{name} {entry['score']:.2f}" if "score" in entry else name
        labels.append((text, (x, y, x + w, y + h), color))
    _write(panel, labels)
    header = np.full((_HEADER, _WIDTH, 3), 255, np.uint8)
    cv2.putText(header, title, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, _TITLE, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([header, panel])


def _write(panel: np.ndarray, labels: Sequence[tuple[str, tuple[float, ...], tuple[int, int, int]]]) -> None:
    """Write black on a ground of the class's colour, over all frames and none over another; see :func:`placed`."""
    import cv2

    sizes = []
    for text, _, _ in labels:
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _FONT, 1)
        sizes.append((width + 2 * _MARGIN, height + below + _MARGIN))
    places = placed([box for _, box, _ in labels], sizes, (panel.shape[1], panel.shape[0]))
    for (text, _, color), (width, height), place in zip(labels, sizes, places):
        if place is not None:
            x, y = map(round, place)
            cv2.rectangle(panel, (x, y), (x + width - 1, y + height - 1), color, -1)
            base = (x + _MARGIN, y + height - 2 * _MARGIN)
            cv2.putText(panel, text, base, cv2.FONT_HERSHEY_SIMPLEX, _FONT, (0, 0, 0), 1, cv2.LINE_AA)


def _beside(parts: Sequence[np.ndarray], gap: int = _GAP) -> np.ndarray:
    height = max(len(part) for part in parts)
    columns = []
    for part in parts:
        columns.append(np.pad(part, ((0, height - len(part)), (0, gap), (0, 0)), constant_values=255))
    return np.concatenate(columns, axis=1)


def _above(rows: Sequence[np.ndarray]) -> np.ndarray:
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )
