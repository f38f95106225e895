"""What a config of MMDetection 2.x becomes: every part of one, and what cannot be carried over."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR

from converters.configs.kinds import ABSENT
from legacy_adapters.families.mmdet2.migration.draft import Draft
from legacy_adapters.families.mmdet2.migration.migration import MIGRATION, translated
from legacy_adapters.families.mmdet2.migration.pipelines import pipeline
from legacy_adapters.families.mmdet2.migration.reading import read
from legacy_adapters.families.mmdet2.migration.schedules import schedule

OLD = Path(__file__).with_name("old_config.py")


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    return read(str(OLD), "2.x")


@pytest.fixture(scope="module")
def new(old: dict[str, Any]) -> dict[str, Any]:
    return translated(deepcopy(old)).config


def test_pipelines_and_preprocessor(new):
    assert [step["type"] for step in new["train_dataloader"]["dataset"]["dataset"]["pipeline"]] == [
        "LoadImageFromFile", "LoadAnnotations", "RandomChoiceResize", "RandomCrop", "RandomFlip", "PackDetInputs",
    ]  # fmt: skip
    choice, crop = new["train_dataloader"]["dataset"]["dataset"]["pipeline"][2:4]
    assert choice["scales"] == [(1333, 640), (1333, 800)] and choice["keep_ratio"] is True
    assert crop["crop_size"] == (500, 300)  # (w, h) in 3.x
    steps = new["test_dataloader"]["dataset"]["pipeline"]
    assert [step["type"] for step in steps] == ["LoadImageFromFile", "Resize", "LoadAnnotations", "PackDetInputs"]
    assert steps[1] == dict(type="Resize", scale=(1333, 800), keep_ratio=True)
    assert new["model"]["data_preprocessor"] == dict(
        type="DetDataPreprocessor",
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    )


def test_data_classes_and_weights(new):
    loader = new["train_dataloader"]
    assert loader["batch_size"] == 4 and loader["batch_sampler"] == dict(type="AspectRatioBatchSampler")
    dataset = loader["dataset"]["dataset"]
    assert dataset["metainfo"] == dict(classes=("cat", "dog", "bird"))
    assert dataset["filter_cfg"] == dict(filter_empty_gt=True, min_size=32)  # 2.x does so without being asked
    assert new["test_dataloader"]["batch_size"] == 1 and new["test_dataloader"]["dataset"]["test_mode"] is True
    assert new["val_evaluator"] == dict(type="CocoMetric", ann_file="pets/val.json", metric=["bbox"], format_only=False)
    weights = dict(type="Pretrained", checkpoint="open-mmlab://detectron2/resnet50_caffe")
    assert new["model"]["backbone"]["init_cfg"] == weights and "pretrained" not in new["model"]


def test_training(new):
    wrapper = new["optim_wrapper"]
    assert wrapper["clip_grad"] == dict(max_norm=35, norm_type=2) and wrapper["paramwise_cfg"] == dict(
        norm_decay_mult=0.0
    )
    assert wrapper["optimizer"] == dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001)
    assert new["train_cfg"] == dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=2)
    assert new["custom_hooks"] == [
        dict(type="EMAHook", ema_type="ExpMomentumEMA", momentum=0.0001, gamma=2000, update_buffers=True, priority=49)
    ]
    assert new["default_hooks"]["checkpoint"]["save_best"] == "coco/bbox_mAP"


class OneRate(torch.optim.Optimizer):
    """An optimizer with a rate of 1 and no weights; a real one imports torch's compiler."""

    def __init__(self) -> None:
        self.param_groups = [dict(lr=1.0, params=[])]

    def step(self) -> None:
        """Do nothing."""


def rates(schedulers: list[dict[str, Any]], steps: int, per_epoch: int) -> list[float]:
    """Return the rates of each step that mmengine's schedulers give, from a rate of 1."""
    kinds = dict(LinearLR=LinearLR, MultiStepLR=MultiStepLR, CosineAnnealingLR=CosineAnnealingLR)
    optimizer = OneRate()
    made = [
        kinds[one["type"]](optimizer, **{key: value for key, value in one.items() if key != "type"})
        for one in schedulers
    ]
    told = []
    for step in range(steps):
        told.append(optimizer.param_groups[0]["lr"])
        for scheduler in made:
            if not scheduler.by_epoch or (step + 1) % per_epoch == 0:
                scheduler.step()
    return told


def test_rates_are_those_of_mmcv():
    draft = Draft()
    lr_config = dict(policy="step", warmup="linear", warmup_iters=7, warmup_ratio=0.1, step=[2, 3])
    schedule(draft, dict(lr_config=lr_config), True, 4)
    # mmcv/runner/hooks/lr_updater.py: k = (1 - iteration / warmup_iters) * (1 - warmup_ratio), rate * (1 - k)
    warm = [1 - (1 - step / 7) * 0.9 if step < 7 else 1.0 for step in range(20)]
    regular = [0.1 ** sum(step // 5 >= epoch for epoch in (2, 3)) for step in range(20)]
    expected = [a * b for a, b in zip(warm, regular)]
    assert rates(draft.config["param_scheduler"], 20, 5) == pytest.approx(expected, rel=1e-9)


def test_cosine_is_that_of_mmcv():
    import math

    draft = Draft()
    schedule(draft, dict(lr_config=dict(policy="CosineAnnealing", min_lr_ratio=0.01)), True, 4)
    expected = [0.01 + 0.99 * (1 + math.cos(math.pi * (step // 5) / 4)) / 2 for step in range(20)]
    assert rates(draft.config["param_scheduler"], 20, 5) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (dict(type="Mosaic", img_scale=(480, 640)), dict(type="Mosaic", img_scale=(640, 480))),
        (dict(type="Pad", size=(480, 640)), dict(type="Pad", size=(640, 480))),
        (dict(type="Resize", img_scale=(8, 9), ratio_range=(0.1, 2.0)),
         dict(type="RandomResize", scale=(8, 9), ratio_range=(0.1, 2.0), keep_ratio=True)),
        (dict(type="Resize", img_scale=[(8, 9), (8, 7)]),
         dict(type="RandomResize", scale=[(8, 9), (8, 7)], keep_ratio=True)),
        (dict(type="AutoAugment", policies=[[dict(type="RandomFlip", flip_ratio=1.0)]]),
         dict(type="RandomChoice", transforms=[[dict(type="RandomFlip", prob=1.0)]])),
        (dict(type="MyStep", strength=3), dict(type="MyStep", strength=3)),
    ],
    ids=lambda step: step["type"],
)  # fmt: skip
def test_steps_of_a_training(old, new):
    assert pipeline(Draft(), [old], "p", testing=False).steps[0] == new


@pytest.mark.parametrize(
    ("change", "key", "why"),
    [
        (
            lambda c: c["model"]["roi_head"]["bbox_head"].update(type="MyHead"),
            "model.roi_head.bbox_head.type",
            "no class",
        ),
        (lambda c: c["model"]["neck"].update(depth=3), "model.neck.depth", "takes no `depth`"),
        (lambda c: c["lr_config"].update(policy="cyclic"), "lr_config.policy", "no scheduler"),
        (lambda c: c["data"]["test"]["pipeline"][1].update(flip=True), "data.test.pipeline.1", "tta_model"),
        (lambda c: c["data"]["test"].update(type="OpenImagesDataset"), "data.test.type", "no evaluator"),
        (
            lambda c: c["data"]["train"]["dataset"]["pipeline"][6].update(size_divisor=64),
            "data.train.dataset.pipeline.6",
            "one",
        ),
        (lambda c: c.update(momentum_config=dict(policy="cyclic")), "momentum_config.policy", "no scheduler"),
        (lambda c: c["optimizer_config"].update(unheard=1), "optimizer_config.unheard", "no such setting"),
        (lambda c: c["runner"].update(unheard=1), "runner.unheard", "not known"),
        (lambda c: c["data"].update(unheard=1), "data.unheard", "not known"),
        (lambda c: c.update(unheard=1), "norm, images, names, train_pipeline, test_pipeline, unheard", "does not read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_over_is_told(old, change, key, why):
    changed = deepcopy(old)
    change(changed)
    assert [remark for remark in translated(changed).remarks if remark.key == key and why in remark.why]


def test_everything_of_this_config_is_carried_over(old):
    assert [remark.key for remark in translated(old).remarks if remark.value is not ABSENT] == []


def test_a_config_is_carried_over_as_it_means(tmp_path, old):
    from converters.configs.source import source

    made = translated(old)
    file = tmp_path / "new.py"
    file.write_text(source("of a test", made.config, {}))
    found = MIGRATION.compare(str(OLD), str(file))
    assert found.differences == () and found.compared > 100


def test_places_with_a_root_of_their_own(old):
    changed = deepcopy(old)
    changed["data"]["test"].update(data_root="set", ann_file="val.json", img_prefix="images/")
    new = translated(changed).config
    dataset = new["test_dataloader"]["dataset"]
    assert (dataset["data_root"], dataset["ann_file"], dataset["data_prefix"]) == (
        "set",
        "val.json",
        dict(img="images/"),
    )
    assert new["test_evaluator"]["ann_file"] == "set/val.json"


def test_settings_of_first_versions(old):
    changed = deepcopy(old)
    of_test, of_training = changed["model"].pop("test_cfg"), changed["model"].pop("train_cfg")
    of_test["rpn"] = dict(
        nms_across_levels=False, nms_pre=1000, nms_post=1000, max_num=500, nms_thr=0.6, min_bbox_size=0
    )
    changed.update(test_cfg=of_test, train_cfg=of_training)
    made = translated(changed)
    assert made.config["model"]["test_cfg"]["rpn"] == dict(
        nms_pre=1000, min_bbox_size=0, nms=dict(type="nms", iou_threshold=0.6), max_per_img=500
    )
    assert made.origin("model.test_cfg.rpn.max_per_img").endswith("max_num")
    changed["model"]["rpn_head"]["type"] = "GARPNHead"
    assert translated(changed).config["model"]["test_cfg"]["rpn"]["nms_post"] == 1000


def test_a_sampler_that_2x_does_not_heed(old):
    changed = deepcopy(old)
    anchors = dict(type="AnchorGenerator", strides=[8])
    loss = dict(type="FocalLoss")
    head = dict(type="RetinaHead", num_classes=3, in_channels=8, anchor_generator=anchors, loss_cls=loss)
    sampler = dict(type="RandomSampler", num=256, pos_fraction=0.5)
    changed["model"] = dict(
        type="RetinaNet", bbox_head=head, train_cfg=dict(assigner=dict(type="MaxIoUAssigner"), sampler=sampler)
    )
    made = translated(changed)
    assert made.config["model"]["train_cfg"]["sampler"] == dict(type="PseudoSampler")
    assert any(remark.key == "model.train_cfg.sampler" for remark in made.remarks)
