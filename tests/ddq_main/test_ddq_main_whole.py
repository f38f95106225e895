"""A whole training of the official code sees the port's data in the port's order, at the port's learning rates."""

from __future__ import annotations

import runpy

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler

from ddq_port import configs
from legacy_adapters import registry
from legacy_adapters.family import LEGACY, NEW
from legacy_adapters.targets.repo2 import whole


def test_the_order_of_images_is_that_of_mmengine_in_every_pass():
    data = list(range(17))
    port, official = DefaultSampler(data, shuffle=True, seed=5), whole._Order(len(data), 5)
    for epoch in (0, 3):
        port.set_epoch(epoch)
        official.set_epoch(epoch)
        assert list(port) == list(official) and sorted(official) == data


def test_pixels_and_objects_are_described_as_the_port_reads_them():
    pixels = torch.randint(256, (3, 4, 5), dtype=torch.uint8)  # blue, green, red
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]))
    image = torch.nn.functional.pad((pixels.flip(0) - mean) / std, (0, 3, 0, 2))
    norm = dict(mean=mean.flatten().numpy(), std=std.flatten().numpy())
    boxes, labels = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([2])

    class Held(list):
        """As mmcv's container of one GPU's part of a batch."""

        data = property(lambda self: self)

    batch = dict(
        img=Held([image[None]]), gt_bboxes=Held([[boxes]]), gt_labels=Held([[labels]]),
        img_metas=Held([[dict(img_shape=(4, 5, 3), ori_filename="a.png", img_norm_cfg=norm)]]),
    )  # fmt: skip
    told = whole._described(batch, {"a.png": 7})
    digest = whole.steplog.digest
    assert told == dict(images=(7,), pixels=digest([pixels]), objects=digest([boxes, labels]))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("ddq_fcn", "ddq-fcn_tiny_shapes"),
        ("ddq_rcnn", "ddq-rcnn_tiny_shapes"),
        ("co_detr", "co_detr/co-dino-4scale_tiny_shapes"),
    ],
)
def test_both_sides_train_with_the_same_numbers(family, name):
    (rehearsal,) = registry.get(family).rehearsals
    port, official = configs.load(name), Config()
    for path in rehearsal.variant.legacy["overrides"]:
        sections = runpy.run_path(path)
        official.merge_from_dict(
            {key: value for key, value in sections.items() if key != "model" and not key.startswith("_")}
        )
    constant, steps = port.param_scheduler
    rates = official.lr_config
    assert (constant.factor, constant.end) == (rates.warmup_ratio, rates.warmup_iters + 1)
    assert (steps.milestones, steps.gamma) == (rates.step, rates.gamma)
    assert port.train_cfg.max_iters == official.runner.max_iters == rehearsal.steps
    assert port.optim_wrapper.optimizer == {key: value for key, value in official.optimizer.items() if key != "_delete_"}
    assert port.optim_wrapper.clip_grad == official.optimizer_config.grad_clip
    norm = official.data.train.pipeline[3]
    assert (port.model.data_preprocessor.mean, port.model.data_preprocessor.std) == (norm.mean, norm.std)


def test_a_rehearsal_fits_schedules_validation_and_checkpoints_to_its_steps():
    (rehearsal,) = registry.get("ddq_fcn").rehearsals
    settings = {side: dict(text.split("=") for text in rehearsal.settings(side, 60)) for side in (LEGACY, NEW)}
    assert settings[LEGACY]["lr_config.step"] == settings[NEW]["param_scheduler.1.milestones"] == "[40,54]"
    assert settings[LEGACY]["runner.max_iters"] == settings[NEW]["train_cfg.max_iters"] == "60"
    assert settings[LEGACY]["checkpoint_config.interval"] == settings[NEW]["default_hooks.checkpoint.interval"] == "30"
