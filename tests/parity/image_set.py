"""A small data set in COCO's format: coloured boxes on noise, files of several sizes and kinds."""

import json

import cv2
import numpy as np

#: (h, w) of the images; the last one has no objects.
SIZES = [(96, 128), (121, 83), (64, 200), (150, 150)]


def write_image_set(folder, sizes=SIZES, categories=3, seed=0):
    """Write ``folder/set.json`` and ``folder/images``; return both paths. Ids of categories have gaps."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, (height, width) in enumerate(sizes, 1):
        pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
        for place in range(0 if number == len(sizes) > 1 else 3):
            label = (number + place) % categories
            left, top = (int(generator.integers(0, side // 2)) for side in (width, height))
            w, h = int(generator.integers(12, width // 2)), int(generator.integers(12, height // 2))
            color = tuple(int(255 * ((label + 1 + channel) % 3) / 2) for channel in range(3))
            cv2.rectangle(pixels, (left, top), (left + w, top + h), color, -1)
            annotations.append(dict(id=len(annotations) + 1, image_id=10 * number, category_id=2 * label + 1,
                                    bbox=[left, top, w, h], area=w * h, iscrowd=0))  # fmt: skip
        name = f"{number:03d}.{'png' if number % 2 else 'jpg'}"
        cv2.imwrite(str(folder / "images" / name), pixels)
        images.append(dict(id=10 * number, file_name=name, height=height, width=width))
    classes = [dict(id=2 * label + 1, name=f"class {label}") for label in range(categories)]
    content = dict(images=images, annotations=annotations, categories=classes)
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json", folder / "images"
