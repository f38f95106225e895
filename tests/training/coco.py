"""Writes a COCO-format data set: squares and discs on four images of 64 x 80 pixels."""

import json
from pathlib import Path

import cv2
import numpy as np

_OBJECTS = [  # image, category, x, y, side in pixels
    (0, 1, 8, 8, 24), (0, 2, 40, 30, 20), (1, 1, 20, 16, 30), (2, 2, 10, 30, 28), (2, 1, 50, 4, 18), (3, 2, 30, 10, 40),
]  # fmt: skip


def write(folder: Path) -> Path:
    """Write `images/` and `annotations.json` into a folder and return it."""
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(4):
        pixels = np.full((64, 80, 3), 40 * number + 30, np.uint8)
        for _, category, x, y, side in (item for item in _OBJECTS if item[0] == number):
            if category == 1:
                cv2.rectangle(pixels, (x, y), (x + side, y + side), (0, 0, 255), -1)
            else:
                cv2.circle(pixels, (x + side // 2, y + side // 2), side // 2, (0, 255, 0), -1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
        images.append(dict(id=number, file_name=f"{number}.png", height=64, width=80))
    for number, (image, category, x, y, side) in enumerate(_OBJECTS, start=1):
        box = dict(bbox=[x, y, side, side], area=side * side, iscrowd=0)
        annotations.append(dict(id=number, image_id=image, category_id=category, **box))
    categories = [dict(id=1, name="square"), dict(id=2, name="disc")]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder
