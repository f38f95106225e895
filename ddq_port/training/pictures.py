"""Draw detections beside the truth, for the eye."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

#: Blue, green, red of the classes' frames.
_COLORS = ((80, 220, 80), (60, 60, 250), (250, 160, 60), (60, 220, 250), (250, 80, 220), (220, 220, 80))
_WIDTH, _GAP, _HEADER = 384, 12, 22  # pixels
_PAIRS_PER_ROW = 2
_FONT = 0.38


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
        right = _panel(pixels, sorted(strong, key=lambda entry: entry["score"]), names, f"score >= {min_score:g}")
        pairs.append(_beside([left, right]))
    rows = [_beside(pairs[at : at + _PAIRS_PER_ROW], 2 * _GAP) for at in range(0, len(pairs), _PAIRS_PER_ROW)]
    unfinished = Path(file).with_name(f".{Path(file).name}.tmp")
    unfinished.write_bytes(cv2.imencode(".png", _above(rows))[1].tobytes())
    unfinished.replace(file)


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
    for entry in entries:
        label, name = names[entry["category_id"]]
        x, y, w, h = (value * scale for value in entry["bbox"])
        color = _COLORS[label % len(_COLORS)]
        cv2.rectangle(panel, (round(x), round(y)), (round(x + w) - 1, round(y + h) - 1), color, 2)
        text = f"{name} {entry['score']:.2f}" if "score" in entry else name
        _write(panel, text, (round(x), round(y)), color)
    header = np.full((_HEADER, _WIDTH, 3), 255, np.uint8)
    cv2.putText(header, title, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([header, panel])


def _write(panel: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Write black on a ground of the class's color, above the box where there is room."""
    import cv2

    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _FONT, 1)
    x = max(0, min(corner[0], panel.shape[1] - width - 4))
    y = corner[1] if corner[1] > height + 5 else corner[1] + height + 5
    cv2.rectangle(panel, (x, y - height - 5), (x + width + 4, y), color, -1)
    cv2.putText(panel, text, (x + 2, y - 3), cv2.FONT_HERSHEY_SIMPLEX, _FONT, (0, 0, 0), 1, cv2.LINE_AA)


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
