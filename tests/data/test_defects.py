"""mmdet itself reads and evaluates the annotations: what breaks a training or an evaluation is found, what does not
is not called an error."""

import json

import pytest

from ddq_port.data.check import EVALUATION, TRAINING, Options, check
from tests.data.sets import content, write


def each(**fields):
    """Return a change of all annotations; a function gets the annotation."""

    def change(data):
        for entry in data["annotations"]:
            entry.update({key: value(entry) if callable(value) else value for key, value in fields.items()})

    return change


def first(**fields):
    def change(data):
        data["annotations"][0].update(fields)

    return change


def without(field, everywhere=True):
    def change(data):
        for entry in data["annotations"] if everywhere else data["annotations"][:1]:
            entry.pop(field)

    return change


def text_of_images(data):
    for image in data["images"]:
        image["id"] = f"frame_{image['id']}"
    for entry in data["annotations"]:
        entry["image_id"] = f"frame_{entry['image_id']}"


def huge_ids(data):
    for image in data["images"]:
        image["id"] += 2**60
    for entry in data["annotations"]:
        entry["image_id"] += 2**60


def small_images(*keys):
    def change(data):
        for image in data["images"]:
            if image["id"] in keys:
                image.update(height=24)
        for entry in data["annotations"]:
            if entry["image_id"] in keys:
                entry["bbox"] = [2, 2, 10 + entry["category_id"], 10]

    return change


def many_objects(number):
    """Put so many objects of one class into the first image, none of which overlap."""

    def change(data):
        data["images"][0].update(width=64 * 20, height=48 * 20)
        data["annotations"][:] = [
            dict(id=at + 1, image_id=1, category_id=1, bbox=[at % 40 * 10, at // 40 * 10, 8, 8], area=64, iscrowd=0)
            for at in range(number)
        ]
        del data["categories"][1:]

    return change


def mixed_ids(data):
    data["images"][0]["id"] = "a"
    for entry in data["annotations"]:
        entry["image_id"] = "a" if entry["image_id"] == 1 else entry["image_id"]


def corners(entry):
    x, y, w, h = entry["bbox"]
    return [x, y, x + w + 20, y + h + 20] if entry["category_id"] == 1 else [x, y, x + w, y + h]


def centers(entry):
    x, y, w, h = entry["bbox"]
    return [x + w / 2, y + h / 2, w, h] if entry["category_id"] == 1 else [56, 40, 16, 16]


def shares(entry):
    x, y, w, h = entry["bbox"]
    return [x / 64, y / 48, w / 64, h / 48]


def yolo(entry):
    x, y, w, h = entry["bbox"]
    return [0.9, 0.9, 0.2, 0.2] if entry["category_id"] == 1 else [(x + w / 2) / 64, (y + h / 2) / 48, w / 64, h / 48]


def turned_sizes(data):
    for image in data["images"]:
        image.update(width=48, height=64)
    each(bbox=lambda entry: [40, 10, 20 + entry["category_id"], 30])(data)


def fewer_images(data):
    data["annotations"] = [entry for entry in data["annotations"] if entry["image_id"] < 3]


def placeholder(data):
    data["categories"].insert(0, dict(id=0, name="animals", supercategory="none"))


def twice(data):
    data["annotations"] += [dict(entry, id=entry["id"] + 100) for entry in data["annotations"]]


def no_annotations(data):
    del data["annotations"]


def no_categories(data):
    del data["categories"]


def new_ids(first_id):
    def change(data):
        for number, entry in enumerate(data["annotations"]):
            entry["id"] = number + first_id

    return change


#: name: (change, kinds that are found with their numbers, whether the set is usable, AP of the truth)
CASES = {
    "clean": (each(), {}, True, 1.0),
    "iscrowd is false": (each(iscrowd=False), {}, True, 1.0),
    "iscrowd is missing": (without("iscrowd"), {"crowd-missing": 12}, False, None),
    "iscrowd is missing once": (without("iscrowd", False), {"crowd-missing": 1}, False, None),
    "area is missing": (without("area"), {"area-missing": 12}, False, None),
    "area is text": (first(area="120"), {"area-missing": 1}, False, None),
    "annotations without ids": (without("id"), {"no-id": 12}, False, None),
    "ids from 0": (new_ids(0), {"zero-id": 1}, False, 0.855),
    "ids from 1": (new_ids(1), {}, True, 1.0),
    "ids below 0": (new_ids(-20), {}, True, 1.0),
    "ids are huge": (huge_ids, {}, True, 1.0),
    "ids are text": (each(id=lambda entry: f"a{entry['id']}"), {"text-id": 12}, False, None),
    "ids are digits": (each(id=lambda entry: str(entry["id"])), {}, True, 1.0),
    "ids are floats": (each(id=lambda entry: float(entry["id"])), {"float-id": 1}, True, 1.0),
    "ids are truth values": (first(id=True), {"no-id": 1}, False, None),
    "an id twice": (first(id=11), {"duplicate-id": 1}, False, None),
    "images have ids of text": (text_of_images, {}, True, 1.0),
    "ids of text and numbers": (mixed_ids, {"mixed-ids": 1}, False, None),
    "category_id is a float": (each(category_id=lambda entry: float(entry["category_id"])), {"float-id": 1}, True, 1.0),
    "image_id is a float": (each(image_id=lambda entry: float(entry["image_id"])), {"float-id": 1}, True, 1.0),
    "category_id is text": (
        each(category_id=lambda entry: str(entry["category_id"])), {"empty": 1, "id-type": 12}, False, None,
    ),
    "image_id is text": (first(image_id="1"), {"id-type": 1}, False, None),
    "ignore is 0": (each(ignore=0), {}, True, 1.0),
    "ignore for one object": (first(ignore=1), {"ignored": 1}, True, 1.0),
    "ignore for a class": (
        each(ignore=lambda entry: int(entry["category_id"] == 2)), {"ignored-class": 1, "ignored": 4}, False, 1.0,
    ),
    "ignore for all": (each(ignore=1), {"empty": 1, "ignored-class": 3, "ignored": 12}, False, 1.0),
    "a crowd": (first(iscrowd=1), {"crowd": 1}, True, 1.0),
    "all small": (small_images(1, 2, 3, 4), {"empty": 1, "filtered": 1}, False, 1.0),
    "some small": (small_images(1, 2, 3), {"filtered": 1}, True, 1.0),
    "100 of a class": (many_objects(100), {}, True, 1.0),
    "130 of a class": (many_objects(130), {"crowded": 1}, True, None),
    "no width": (first(bbox=[2, 3, 0, 12]), {"no-area": 1}, True, None),
    "thin": (first(bbox=[2, 3, 0.5, 12]), {"thin": 1}, True, 1.0),
    "NaN": (first(bbox=[2, 3, float("nan"), 12]), {"bad-box": 1}, False, None),
    "outside": (first(bbox=[80, 3, 10, 12]), {"outside": 1}, False, 1.0),
    "beyond the edge": (first(bbox=[50, 3, 20, 12]), {"beyond-edge": 1}, True, 1.0),
    "boxes as corners": (each(bbox=corners), {"box-form": 1, "beyond-edge": 8}, False, None),
    "boxes from their centers": (each(bbox=centers), {"box-form": 1, "beyond-edge": 8}, False, None),
    "boxes as shares": (each(bbox=shares), {"empty": 1, "box-form": 1, "thin": 12}, False, 1.0),
    "boxes of YOLO": (each(bbox=yolo), {"empty": 1, "box-form": 1, "thin": 12}, False, 1.0),
    "sizes are exchanged": (turned_sizes, {"box-form": 1, "beyond-edge": 12}, False, 1.0),
    "each object twice": (twice, {"duplicate-box": 12}, True, 1.0),
    "images without objects": (fewer_images, {}, True, 1.0),
    "a placeholder class": (placeholder, {"unused-class": 1}, True, 1.0),
    "no annotations": (no_annotations, {"unreadable": 1}, False, None),
    "no categories": (no_categories, {"unreadable": 1, "empty": 1}, False, None),
}  # fmt: skip


@pytest.mark.parametrize("change, kinds, usable, ap", CASES.values(), ids=CASES)
def test_a_set_with_one_defect(tmp_path, change, kinds, usable, ap):
    data = content()
    change(data)
    findings = check(write(tmp_path, data, images=False))
    assert (findings.counts, findings.ok) == (kinds, usable), findings.problems
    if ap is not None:
        assert findings.truth.ap == pytest.approx(ap, abs=0.001)


SAYS = {
    "boxes as corners": "of 12 leave their images, and they look like corners [x1, y1, x2, y2]",
    "boxes from their centers": "they look like [center x, center y, width, height]",
    "boxes as shares": "look like shares of width and height, between 0 and 1; multiply",
    "boxes of YOLO": "the center of the box, as YOLO writes it",
    "sizes are exchanged": "width and height of the images look exchanged",
    "some small": "3 of 4 images will not be trained: smaller than min_size 32 (image 1, 2, 3)",
    "130 of a class": "30 of 130 objects are not looked at: more than 100 objects of a class in an image",
    "a placeholder class": "class `animals` has no object; Roboflow writes such a placeholder",
    "category_id is text": "category_id is '1', the id in the list is 1",
    "no annotations": "one cannot train or evaluate on a test set without annotations",
}


@pytest.mark.parametrize("name, said", SAYS.items(), ids=SAYS)
def test_what_is_said(tmp_path, name, said):
    data = content()
    CASES[name][0](data)
    findings = check(write(tmp_path, data, images=False))
    assert any(said in problem.text for problem in findings.problems), findings.problems


def test_lost_objects_are_counted_by_cause(tmp_path):
    data = content()
    data["annotations"][0]["id"] = 0
    data["annotations"][1]["bbox"][2] = 0
    truth = check(write(tmp_path, data, images=False)).truth
    assert truth.lost == {"annotation id 0": 1, "boxes without area": 1} and truth.objects == 12 and truth.ap < 1


@pytest.mark.parametrize("name", ["iscrowd is missing", "ids from 0", "ids are text"])
def test_what_only_the_evaluation_trips_over_is_a_warning_for_training_data(tmp_path, name):
    data = content()
    CASES[name][0](data)
    file = write(tmp_path, data, images=False)
    training, evaluation = (check(file, None, Options(purpose=purpose)) for purpose in (TRAINING, EVALUATION))
    assert training.ok and training.count("warning") and not evaluation.ok


def test_filters_hold_for_training_only(tmp_path):
    data = content()
    small_images(1, 2, 3, 4)(data)
    file = write(tmp_path, data, images=False)
    assert check(file, None, Options(purpose=EVALUATION)).counts == {}
    assert check(file, None, Options(filter_cfg={})).counts == {}


def test_empty_images_that_a_config_filters(tmp_path):
    data = content()
    fewer_images(data)
    findings = check(write(tmp_path, data, images=False), None, Options(filter_cfg=dict(filter_empty_gt=True)))
    assert findings.counts == {"filtered": 1} and findings.trained == 2
    assert "2 of 4 images will not be trained: without annotations" in findings.problems[0].text


def test_more_objects_than_the_model_gives(tmp_path):
    findings = check(write(tmp_path, images=False), None, Options(detections=2))
    assert findings.counts == {"crowded": 4} and "3 objects, the model gives 2" in findings.problems[0].text


def test_what_mmdet_refuses_for_a_reason_of_its_own(tmp_path, monkeypatch):
    from mmdet.datasets import CocoDataset

    def refuse(self):
        raise RuntimeError("not on a Monday")

    monkeypatch.setattr(CocoDataset, "load_data_list", refuse)
    findings = check(write(tmp_path, images=False))
    assert findings.counts == {"reader": 1} and "RuntimeError: not on a Monday" in findings.problems[0].text


ENCODINGS = {
    "utf-8-sig": ("encoding", "byte order mark"),
    "utf-16": ("encoding", "UTF-16"),
    "utf-32": ("encoding", "UTF-32"),
    "utf-16-le": ("encoding", "looks like UTF-16-LE"),
    "latin-1": ("encoding", "byte 0xe9 in line 1"),
    "cp1252": ("encoding", "iconv -f cp1252"),
}


@pytest.mark.parametrize("encoding, expected", ENCODINGS.items(), ids=ENCODINGS)
def test_an_encoding_that_mmdet_does_not_read(tmp_path, encoding, expected):
    kind, said = expected
    data = content()
    data["categories"][0]["name"] = "café"
    file = tmp_path / "ann.json"
    file.write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))
    findings = check(file)
    assert findings.counts == {kind: 1} and said in findings.problems[0].text
    assert findings.annotations == 12  # the rest is looked at nevertheless


def test_utf_8_is_read(tmp_path):
    data = content()
    data["categories"][0]["name"] = "café"
    (tmp_path / "ann.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    assert check(tmp_path / "ann.json").counts == {}


NO_COCO = {
    "gzip": (b"\x1f\x8b\x08", "compressed by gzip"),
    "zip": (b"PK\x03\x04", "a zip archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "html": (b"<!DOCTYPE html><html>", "a web page"),
    "cut": (json.dumps(content()).encode()[:-30], "ends too early"),
    "cut in a text": (b'{"images": [{"file_name": "00', "ends too early"),
    "comma too many": (b'{"images": [], }', "remove the comma before the closing bracket"),
    "comma too many in a list": (b'{"images": [1,\n]}', "remove the comma before the closing bracket"),
    "other quotes": (b"{'images': []}", "enclosed in double quotes"),
    "empty": (b"", "the file is empty"),
    "lines": (b'{"id": 1}\n{"id": 2}\n', "another value behind the first"),
    "detections": (b'[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]', "a list of detections"),
    "labelme": (b'{"shapes": [], "imagePath": "a.png"}', "LabelMe"),
    "panoptic": (b'{"annotations": [{"segments_info": []}]}', "panoptic segments"),
    "image": (b"\x89PNG\r\n\x1a\n", "an image"),
}


@pytest.mark.parametrize("written, said", NO_COCO.values(), ids=NO_COCO)
def test_what_is_no_coco_file(tmp_path, written, said):
    (tmp_path / "ann.json").write_bytes(written)
    findings = check(tmp_path / "ann.json")
    assert findings.counts == {"unreadable": 1} and said in findings.problems[0].text, findings.problems
