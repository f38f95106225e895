"""A clean data set of four images with three objects each, to be broken."""

import json

import numpy as np

WIDTH, HEIGHT = 64, 48
_BOXES = ((2, 3, 10, 12), (30, 5, 20, 16), (12, 25, 15, 18))
PIXELS = (np.arange(WIDTH * HEIGHT * 3) % 251).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def content():
    """Return the content of its annotation file; class `cat` has 4 objects, `dog` 4, `bird` 4."""
    images = [dict(id=key, file_name=f"{key}.png", width=WIDTH, height=HEIGHT) for key in (1, 2, 3, 4)]
    annotations = [
        dict(
            id=3 * image["id"] + place + 7,  # 10 ... 21
            image_id=image["id"],
            category_id=place + 1,
            bbox=list(box),
            area=box[2] * box[3],
            iscrowd=0,
        )
        for image in images
        for place, box in enumerate(_BOXES)
    ]
    categories = [dict(id=key, name=name) for key, name in ((1, "cat"), (2, "dog"), (3, "bird"))]
    return dict(images=images, annotations=annotations, categories=categories)


def write(folder, changed=None, images=True):
    """Write annotation file and images into a folder and return the file's path."""
    import cv2

    (folder / "img").mkdir(exist_ok=True)
    if images:
        for key in (1, 2, 3, 4):
            cv2.imwrite(str(folder / "img" / f"{key}.png"), PIXELS)
    file = folder / "ann.json"
    file.write_text(json.dumps(content() if changed is None else changed))
    return file
