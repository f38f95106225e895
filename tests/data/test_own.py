"""A config is pointed at one's own data: paths, classes in the file's order, their number in the model."""

import json

import pytest

from ddq_port import configs
from ddq_port.data import own
from ddq_port.data.own import OwnDataError, Source


def source(folder, name, *classes):
    file = folder / f"{name}.json"
    categories = [dict(id=at * 3 + 2, name=class_name) for at, class_name in enumerate(classes)]
    file.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    return Source(file, folder / name)


@pytest.fixture
def cfg():
    return configs.load("ddq-detr-4scale_r50_8xb2-12e_coco")


def test_all_that_depends_on_the_data_is_replaced(cfg, tmp_path):
    train, val = source(tmp_path, "train", "nut", "bolt"), source(tmp_path, "val", "nut", "bolt")
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert own.use(cfg, train, val) == ("nut", "bolt")
    for name, given in (("train", train), ("val", val), ("test", val)):
        dataset = cfg[f"{name}_dataloader"].dataset
        assert dataset.data_root == "" and dataset.ann_file == str(given.ann_file)
        assert dataset.data_prefix.img == f"{given.images}/" and dataset.metainfo.classes == ("nut", "bolt")
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(val.ann_file)
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.train_dataloader.dataset.pipeline == pipeline
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False, min_size=32)


def test_relative_paths_hold_wherever_the_config_is_read(cfg, tmp_path, monkeypatch):
    given = source(tmp_path, "train", "nut")
    monkeypatch.chdir(tmp_path)
    relative = Source(given.ann_file.relative_to(tmp_path), given.images.relative_to(tmp_path))
    own.use(cfg, relative, relative)
    assert cfg.train_dataloader.dataset.ann_file == str(given.ann_file)


def test_every_number_of_classes(cfg, tmp_path):
    given = source(tmp_path, "train", "nut")
    cfg.model.roi_head = dict(bbox_head=[dict(num_classes=80), dict(num_classes=80)])
    own.use(cfg, given, given)
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [1, 1]


def test_a_config_without_validation(cfg, tmp_path):
    for name in ("val_dataloader", "val_evaluator", "test_dataloader", "test_evaluator"):
        cfg[name] = None
    assert own.use(cfg, source(tmp_path, "train", "nut"), None) == ("nut",)


def test_validation_data_are_missing(cfg, tmp_path):
    with pytest.raises(OwnDataError, match="--val-data ANN IMAGES"):
        own.use(cfg, source(tmp_path, "train", "nut"), None)


@pytest.mark.parametrize("classes", [("bolt", "nut"), ("nut",), ("nut", "bolt", "pin")])
def test_other_classes_in_validation(cfg, tmp_path, classes):
    with pytest.raises(OwnDataError, match="Expected the same in the same order"):
        own.use(cfg, source(tmp_path, "train", "nut", "bolt"), source(tmp_path, "val", *classes))


def test_a_class_twice(cfg, tmp_path):
    given = source(tmp_path, "train", "nut", "bolt", "nut")
    with pytest.raises(OwnDataError, match="train.json` has the category `nut` twice"):
        own.use(cfg, given, given)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"categories": [{"id": 1}]}', '{"categories": 1}', '{"categories": []}',
     '{"categories": [{"id": 1, "name": 7}]}'],
)  # fmt: skip
def test_a_file_that_names_no_classes(cfg, tmp_path, text):
    given = source(tmp_path, "train")
    given.ann_file.write_text(text)
    with pytest.raises(OwnDataError, match="names no classes .* see `ddq-train check-data"):
        own.use(cfg, given, given)


def test_a_data_set_of_another_kind(cfg, tmp_path):
    cfg.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[])
    given = source(tmp_path, "train", "nut")
    with pytest.raises(OwnDataError, match="train_dataloader.dataset is a ConcatDataset"):
        own.use(cfg, given, given)


def test_a_model_without_classes(cfg, tmp_path):
    cfg.model.bbox_head.pop("num_classes")
    given = source(tmp_path, "train", "nut")
    with pytest.raises(OwnDataError, match="has no num_classes"):
        own.use(cfg, given, given)
