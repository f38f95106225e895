"""A training of a tiny DDQ-DETR on a few generated images, to be killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ddq_port.hooks  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ddq_port import configs

IMAGES, BATCH, EPOCHS, INTERVAL = 15, 2, 3, 3
ITERATIONS = EPOCHS * -(-IMAGES // BATCH)
LOSSES = "losses.txt"
_CLASSES = ("one", "two", "three")


class WriteLosses(Hook):
    """Append the number of each iteration and all its loss terms, bit for bit, to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        terms = " ".join(f"{name}={value.item().hex()}" for name, value in outputs.items())
        with open(self.path, "a") as file:
            file.write(f"{runner.iter + 1} {terms}\n")


def generate(folder: Path) -> None:
    """Write images of several shapes and their annotations; some have no objects."""
    draw = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(IMAGES):
        height, width = draw.integers(64, 96, 2).tolist()
        cv2.imwrite(str(folder / f"{number}.png"), draw.integers(0, 255, (height, width, 3)).astype(np.uint8))
        images.append(dict(id=number, file_name=f"{number}.png", height=height, width=width))
        for _ in range(number % 4):
            x, y, w, h = *draw.integers(0, 30, 2).tolist(), *draw.integers(10, 34, 2).tolist()
            about = dict(id=len(annotations), image_id=number, category_id=number % 3, bbox=[x, y, w, h])
            annotations.append(about | dict(area=w * h, iscrowd=0))
    categories = [dict(id=number, name=name) for number, name in enumerate(_CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / "annotations.json").write_text(json.dumps(content))


def runner(data: Path, work_dir: Path, resume: bool) -> Runner:
    """Return a Runner of the tiny config with random augmentation, workers, averages, warm-up and the hooks."""
    made = configs.load("ddq-detr-4scale_tiny")
    made.merge_from_dict(dict(model=dict(num_queries=30, encoder=dict(num_layers=1), decoder=dict(num_layers=2))))
    scales = [(64, 96), (80, 96), (96, 96)]
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="RandomFlip", prob=0.5),
        dict(type="RandomChoiceResize", scales=scales, keep_ratio=True),
        dict(type="RandomCrop", crop_size=(64, 64), allow_negative_crop=True),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackDetInputs"),
    ]
    made.train_dataloader.update(batch_size=BATCH, num_workers=2, persistent_workers=True)
    made.train_dataloader.dataset.update(
        data_root=str(data),
        ann_file="annotations.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=_CLASSES),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=pipeline,
    )
    return (
        Runner(  # of the parts: mmengine formats the text of a whole config for every checkpoint, which takes a second
            model=made.model,
            work_dir=str(work_dir),
            train_dataloader=made.train_dataloader,
            train_cfg=dict(by_epoch=True, max_epochs=EPOCHS),
            optim_wrapper=made.optim_wrapper,
            param_scheduler=[dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=10)],
            default_hooks=dict(
                checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=INTERVAL, max_keep_ckpts=2)
            ),
            custom_hooks=[
                dict(type="EMAHook", momentum=0.01),
                dict(type="ddq_port.ExactResumeHook"),
                dict(type="ddq_port.StopOnNonFiniteLossHook"),
                dict(type=WriteLosses, path=str(work_dir / LOSSES)),
            ],
            randomness=dict(seed=7),
            default_scope="mmdet",
            resume=resume,
            log_level="ERROR",
        )
    )


def train(data: str, work_dir: str) -> None:
    """Train from the beginning, or go on from the last checkpoint if there is one."""
    runner(Path(data), Path(work_dir), resume=Path(work_dir, "last_checkpoint").exists()).train()
