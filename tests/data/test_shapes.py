"""The generated data set: its statistics, its boxes, the same bytes for the same seed, all or nothing on the disk."""

import hashlib
import json
from collections import Counter

import click
import numpy as np
import pytest

from ddq_port.data import shapes
from ddq_port.data.check import check
from ddq_port.data.shapes import CLASSES, SIDE, Shape, Split

SCENES = list(shapes.scenes(Split("val", 240, 1)))


def overlapping(scene, threshold=0.3):
    boxes = [shape.box for shape in scene.shapes]
    return sum(any(shapes.iou(a, b) > threshold for b in boxes[:i] + boxes[i + 1 :]) for i, a in enumerate(boxes))


def tree(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_scenes_are_hard_enough():
    objects = [shape for scene in SCENES for shape in scene.shapes]
    assert sum(map(overlapping, SCENES)) >= 0.15 * len(objects)
    numbers = Counter(len(scene.shapes) for scene in SCENES)
    assert numbers[0] >= 5 and sum(numbers[n] for n in range(7, 11)) >= 20
    labels = Counter(shape.label for shape in objects)
    assert len(CLASSES) >= 3 and min(labels[label] for label in range(len(CLASSES))) > 0.25 * len(objects)
    sizes = [(w * h) ** 0.5 for _, _, w, h in (shape.box for shape in objects)]
    assert min(sizes) < 20 and max(sizes) > 55 and sum(24 < size < 44 for size in sizes) > 0.2 * len(sizes)


def test_objects_lie_inside_their_image():
    for scene in SCENES:
        for x, y, w, h in (shape.box for shape in scene.shapes):
            assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= SIDE and y + h <= SIDE


def test_another_seed_gives_other_scenes_and_a_longer_split_begins_alike():
    first = list(shapes.scenes(Split("a", 20, 7)))
    assert first == list(shapes.scenes(Split("b", 30, 7)))[:20]
    assert not set(first) & set(shapes.scenes(Split("a", 20, 8)))


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_a_shape_touches_all_sides_of_its_box(label):
    for w in range(10, 70, 3):
        for h in range(10, 70, 7):
            covered = shapes.mask(Shape(label, (0, 0, w, h), (0, 0, 0)))
            assert covered.shape == (h, w)
            assert covered[0].any() and covered[-1].any() and covered[:, 0].any() and covered[:, -1].any()


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_a_shape_changes_its_own_pixels_only(label):
    shape = Shape(label, (20, 30, 40, 25), (250, 250, 250))
    ground = ((30, 40, 50), (60, 20, 10))
    bare, drawn = (shapes.render(shapes.Scene(content, ground)).astype(int) for content in ((), (shape,)))
    changed = np.zeros((SIDE, SIDE), bool)
    changed[30:55, 20:60] = shapes.mask(shape)
    assert ((bare != drawn).any(-1) == changed).all()


def test_what_lies_below_shows_through():
    below, above = Shape(1, (20, 20, 40, 40), (250, 0, 0)), Shape(1, (30, 30, 40, 40), (0, 0, 250))
    ground = ((10, 10, 10), (10, 10, 10))
    alone, both = (shapes.render(shapes.Scene(content, ground)) for content in ((above,), (below, above)))
    assert (alone[45, 45] != both[45, 45]).any() and (alone[65, 65] == both[65, 65]).all()


def test_pixels_are_the_same_on_every_machine():
    pixels = b"".join(shapes.render(scene).tobytes() for scene in SCENES[:20])
    assert hashlib.sha256(pixels).hexdigest() == "268147daf68d3ed57b2484599c8d3e431a3d9e5b3aa9f2ef302b533dad3f7ddb"


def test_same_seed_same_bytes(tmp_path):
    splits = (Split("train", 12, 0), Split("val", 5, 1))
    shapes.write(tmp_path / "a", splits)
    shapes.write(tmp_path / "b" / "c", splits)
    assert tree(tmp_path / "a") == tree(tmp_path / "b" / "c")
    assert len(tree(tmp_path / "a")) == 12 + 5 + 2
    shapes.write(tmp_path / "d", (Split("train", 12, 2), Split("val", 5, 1)))
    differing = {name for name, digest in tree(tmp_path / "a").items() if tree(tmp_path / "d")[name] != digest}
    assert all("train" in name for name in differing) and len(differing) > 10


def test_annotations_say_what_was_drawn(tmp_path):
    import cv2
    from pycocotools.coco import COCO

    split = Split("val", 30, 3)
    shapes.write(tmp_path / "set", (split,))
    coco = COCO(tmp_path / "set" / "annotations" / "val.json")
    for (image_id, image), scene in zip(coco.imgs.items(), shapes.scenes(split), strict=True):
        pixels = cv2.imread(str(tmp_path / "set" / "val" / image["file_name"]))[:, :, ::-1]
        assert (pixels == shapes.render(scene)).all()
        found = [(a["category_id"] - 1, tuple(a["bbox"])) for a in coco.imgToAnns[image_id]]
        assert found == [(shape.label, shape.box) for shape in scene.shapes]
    assert [category["name"] for category in coco.dataset["categories"]] == list(CLASSES)
    findings = check(tmp_path / "set" / "annotations" / "val.json", tmp_path / "set" / "val")
    assert findings.counts == {} and findings.images == 30


def test_fewer_classes(tmp_path):
    split = Split("val", 30, 3, classes=("triangle", "ellipse"))
    assert {shape.label for scene in shapes.scenes(split) for shape in scene.shapes} == {0, 2}
    shapes.write(tmp_path / "set", (split,))
    content = json.loads((tmp_path / "set" / "annotations" / "val.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["triangle", "ellipse"]
    names = {category["id"]: category["name"] for category in content["categories"]}
    expected = [CLASSES[shape.label] for scene in shapes.scenes(split) for shape in scene.shapes]
    assert [names[annotation["category_id"]] for annotation in content["annotations"]] == expected


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="exists; expected the name of a new folder"):
        shapes.write(tmp_path, (Split("train", 1, 0),))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "render", lambda scene: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shapes.write(tmp_path / "set", (Split("train", 3, 0),))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed(tmp_path):
    left = tmp_path / ".set.shapes.tmp" / "train"
    left.mkdir(parents=True)
    (left / "000009.png").write_text("half")
    shapes.write(tmp_path / "set", (Split("train", 3, 0),))
    assert len(tree(tmp_path)) == 3 + 1


def test_the_command_draws_once_and_refuses_another_folder(tmp_path, monkeypatch, capsys):
    from ddq_port.training import demo

    monkeypatch.setattr(demo, "TRAINING_IMAGES", 2)
    monkeypatch.setattr(demo, "VALIDATION_IMAGES", 1)
    folder = tmp_path / "below" / "shapes"
    assert demo.draw_data(folder) == 0
    assert (len(list((folder / "train").iterdir())), len(list((folder / "val").iterdir()))) == (2, 1)
    assert [path.name for path in folder.parent.iterdir()] == ["shapes"]
    drawn = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert demo.draw_data(folder) == 0
    assert "holds the images already" in capsys.readouterr().out
    assert drawn == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(click.ClickException, match="other exists and holds something else; choose another FOLDER"):
        demo.draw_data(other)
