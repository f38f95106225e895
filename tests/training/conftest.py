"""A data set of a few small images and a config that trains the tiny model on it for a few steps."""

from pathlib import Path

import pytest

from .coco import write

CONFIG = """
_base_ = [{base!r}]
model = dict(bbox_head=dict(num_classes=2), num_queries=20, test_cfg=dict(max_per_img=20))
_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(80, 64), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
_data = dict(
    data_root={data!r}, ann_file="annotations.json", data_prefix=dict(img="images/"),
    metainfo=dict(classes=("square", "disc")), pipeline=_pipeline,
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=_data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=_data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + "/annotations.json")
test_evaluator = val_evaluator
param_scheduler = []
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def config(tmp_path_factory, data) -> str:
    from ddq_port import configs

    path = tmp_path_factory.mktemp("config") / "two_shapes.py"
    path.write_text(CONFIG.format(base=str(configs.path("ddq-detr-4scale_tiny")), data=str(data)))
    return str(path)
