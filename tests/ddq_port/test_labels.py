"""Labels of boxes in pictures: none lies over another one, each as near to its box as it can be."""

import itertools
import random

import pytest

from ddq_port.labels import COLORS, color_of, placed
from ddq_port.training.output import pictures


def rectangles(places, sizes):
    return [(x, y, x + w, y + h) for place, (w, h) in zip(places, sizes) if place for x, y in [place]]


def overlap(one, two):
    return min(one[2], two[2]) > max(one[0], two[0]) and min(one[3], two[3]) > max(one[1], two[1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [10, 300], ids=["a crowd", "all over"])
def test_labels_never_overlap_and_stay_in_the_picture(seed, spread):
    draw = random.Random(seed)
    corners = [(draw.uniform(0, spread), draw.uniform(0, spread)) for _ in range(20)]
    boxes = [(x, y, x + draw.uniform(5, 100), y + draw.uniform(5, 100)) for x, y in corners]
    sizes = [(draw.uniform(40, 110), 18.0) for _ in boxes]
    places = placed(boxes, sizes, (400, 400))
    assert None not in places
    found = rectangles(places, sizes)
    assert not any(overlap(one, two) for one, two in itertools.combinations(found, 2))
    assert all(x >= 0 and y >= 0 and right <= 400 and bottom <= 400 for x, y, right, bottom in found)


def test_a_label_stands_on_its_box_where_it_can():
    assert placed([(50, 60, 150, 160)], [(40, 10)], (200, 200)) == [(50, 50)]
    assert placed([(0, 2, 100, 90)], [(40, 10)], (200, 200)) == [(0, 0)]
    # of two boxes in one place the second label goes to the other corner
    assert placed([(50, 60, 150, 160)] * 2, [(40, 10)] * 2, (200, 200)) == [(50, 50), (110, 50)]


def test_labels_without_a_place_are_left_out_and_the_first_is_kept():
    assert placed([(0, 0, 9, 9)] * 3, [(40, 10)] * 3, (40, 10)) == [(0, 0), None, None]
    assert placed([(0, 0, 9, 9)], [(41, 10)], (40, 10)) == [None]


def test_classes_have_colours_of_their_own():
    assert len({color_of(label) for label in range(len(COLORS))}) == len(COLORS)
    assert color_of(len(COLORS)) == color_of(0)


def test_picture_of_a_demo_writes_every_label_of_a_crowd(tmp_path, monkeypatch):
    import json

    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((128, 128, 3), np.uint8))
    boxes = [dict(id=n, image_id=1, category_id=1 + n % 2, bbox=[60 + n, 60, 20, 20]) for n in range(6)]
    content = dict(images=[dict(id=1, file_name="a.png")], annotations=boxes,
                   categories=[dict(id=1, name="one"), dict(id=2, name="two")])  # fmt: skip
    (tmp_path / "ann.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps([{**box, "score": 0.9} for box in boxes]))
    written, put = [], cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda image, text, *rest: (written.append((text, rest[2])), put(image, text, *rest))
    )
    pictures.draw(tmp_path / "ann.json", tmp_path, tmp_path / "found.json", tmp_path / "x.png")
    assert [text for text, _ in written if text.endswith("0.90")] == ["one 0.90", "two 0.90"] * 3
    assert min(size for _, size in written) >= 0.5
    assert cv2.imread(str(tmp_path / "x.png")).shape[1] > 1000
