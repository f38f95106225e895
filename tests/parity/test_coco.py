"""Data sets in COCO's format: what is read, what is refused, and the AP."""

import json

import numpy as np
import pytest

from parity.evaluation.coco import STATS, BadSetError, average_precision, load

from .image_set import SIZES, write_image_set


@pytest.fixture
def image_set(tmp_path):
    return write_image_set(tmp_path / "set")


def rows_of(images, score=0.9):
    """Return detections that are the objects themselves."""
    used = {image.id for image in images.images}
    rows = [[o["image_id"], *o["bbox"], score, o["category_id"]] for o in images.content["annotations"]]
    return np.array([row for row in rows if row[0] in used], dtype=float)


def test_images_come_in_the_order_of_the_file_and_may_be_limited(image_set):
    images = load(*image_set, None)
    assert [image.id for image in images.images] == [10, 20, 30, 40] == [10 * n for n in range(1, len(SIZES) + 1)]
    assert all(image.file.is_file() for image in images.images)
    assert [image.id for image in load(*image_set, 2).images] == [10, 20]


def test_perfect_detections_have_ap_1_and_none_at_all_0(image_set):
    images = load(*image_set, None)
    stats = average_precision(images, rows_of(images))
    assert stats.keys() == STATS.keys() and stats["AP"] == pytest.approx(1.0) and stats["AP large"] is None
    assert set(average_precision(images, np.zeros((0, 7))).values()) == {0.0}


def test_ap_is_of_the_images_that_are_used(image_set):
    images = load(*image_set, 1)
    assert average_precision(images, rows_of(images))["AP"] == pytest.approx(1.0)


def test_half_the_objects_by_hand(tmp_path):
    images = load(*write_image_set(tmp_path / "one", sizes=[(90, 90)], categories=1), None)
    rows = rows_of(images)
    assert len(rows) == 3
    # one of three objects found: precision 1 up to a recall of 1/3, that is at 34 of the 101 recalls of COCO
    assert average_precision(images, rows[:1])["AP"] == pytest.approx(34 / 101)


def test_images_without_objects_have_no_ap(tmp_path, image_set):
    content = json.loads(image_set[0].read_text())
    content["images"] = content["images"][-1:]
    image_set[0].write_text(json.dumps(content))
    assert average_precision(load(*image_set, None), np.zeros((0, 7))) is None


def test_labels_stand_for_categories_in_the_order_of_the_file_or_by_name(image_set):
    images = load(*image_set, None)
    assert images.category_ids(None, 3) == (1, 3, 5)
    assert images.category_ids(["class 2", "class 0", "class 1"], 3) == (5, 1, 3)
    with pytest.raises(BadSetError, match="has 3 categories and the model 80 classes"):
        images.category_ids(None, 80)


@pytest.mark.parametrize(
    ("classes", "count", "says"),
    [
        (None, 2, "has 3 categories and the model 2 classes; its categories are class 0, class 1, class 2"),
        (["class 0", "class 1", "dog"], 3, "no category `dog`, which is a class of the checkpoint; it has class 0, cl"),
        (["class 0", "class 1", "Class 2"], 3, "it has `class 2`, which differs only in upper and lower case"),
        (["class 0", "class 1"], 3, r"names 2 classes \(class 0, class 1\) and the model has 3"),
    ],
)
def test_classes_of_others(image_set, classes, count, says):
    with pytest.raises(BadSetError, match=says):
        load(*image_set, None).category_ids(classes, count)


def test_categories_of_one_name(image_set):
    content = json.loads(image_set[0].read_text())
    content["categories"][2]["name"] = "class 0"
    image_set[0].write_text(json.dumps(content))
    with pytest.raises(BadSetError, match="has the category `class 0` twice"):
        load(*image_set, None).category_ids(["class 0", "class 1", "class 2"], 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("categories"), "has no list `categories`"),
        (lambda c: c.update(images=[]), "has no images"),
        (lambda c: c["images"][1].pop("file_name"), r"images\[1\] of .* has no `file_name`"),
        (lambda c: c["images"][1].update(file_name="none.png"), "Image 20 of .* is not there"),
        (lambda c: c["images"][1].update(id=10), "one and the same id"),
        (lambda c: c["annotations"][2].pop("area"), r"annotations\[2\] of .* has no `area`"),
    ],
)
def test_what_is_missing_is_named(image_set, change, says):
    content = json.loads(image_set[0].read_text())
    change(content)
    image_set[0].write_text(json.dumps(content))
    with pytest.raises(BadSetError, match=says):
        load(*image_set, None)


def test_what_is_no_data_set(tmp_path):
    for text, says in (("[]", "has no list `images`"), ("{", "is not JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(BadSetError, match=says):
            load(tmp_path / "x.json", tmp_path, None)
