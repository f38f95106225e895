"""Trainings of 2.x: the small models of the family, with what a config says of a training."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "legacy_adapters" / "families" / "mmdet2" / "configs"
BATCHES = 3  # steps of an epoch
_EPOCHS = """
runner = dict(type="EpochBasedRunner", max_epochs=4)
checkpoint_config = dict(interval=1)
"""
_AVERAGED = """
optimizer = dict(type="SGD", lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.0005,
                 paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
optimizer_config = dict(grad_clip=None)
"""
#: Name -> model, what is said of its training, checkpoint.
TRAININGS = {
    "faster_rcnn": (
        "tiny_faster_rcnn",
        """
lr_config = dict(policy="step", warmup="linear", warmup_iters=5, warmup_ratio=0.001, step=[2, 3])
""" + _EPOCHS,
        "epoch_1.pth",
    ),
    "detr": (
        "tiny_detr",
        """
lr_config = dict(policy="step", warmup="linear", warmup_iters=5, warmup_ratio=0.1, step=[2])
""" + _EPOCHS,
        "epoch_1.pth",
    ),
    "steps": (
        "tiny_faster_rcnn",
        """
optimizer = dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001,
                 paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0, custom_keys=dict(roi_head=dict(lr_mult=0.5))))
optimizer_config = dict(grad_clip=dict(max_norm=35, norm_type=2))
lr_config = dict(policy="CosineAnnealing", min_lr_ratio=0.01, warmup="exp", warmup_iters=3, warmup_ratio=0.1)
momentum_config = dict(policy="step", step=[9], gamma=0.5, by_epoch=False)
runner = dict(type="IterBasedRunner", max_iters=12)
checkpoint_config = dict(interval=5)
""",
        "iter_5.pth",
    ),
    "averaged": (
        "tiny_retinanet",
        _AVERAGED + """
lr_config = dict(policy="YOLOX", warmup="exp", by_epoch=False, warmup_by_epoch=True, warmup_ratio=1, warmup_iters=1,
                 num_last_epochs=1, min_lr_ratio=0.05)
custom_hooks = [dict(type="ExpMomentumEMAHook", total_iter=10, momentum=0.1, priority=49)]
""" + _EPOCHS,
        "epoch_2.pth",
    ),
    "averaged behind the saving": (
        "tiny_retinanet",
        _AVERAGED + """
lr_config = dict(policy="step", step=[3])
custom_hooks = [dict(type="EMAHook", momentum=0.2, warm_up=1)]
""" + _EPOCHS,
        "epoch_2.pth",
    ),
}  # fmt: skip
#: The layout of 2.x, in which 3.x computes the same bits.
SEQUENCE_FIRST = """
model = dict(
    type="ddq_port.DETR", layout="sequence_first", bbox_head=dict(type="ddq_port.DETRHead"),
    train_cfg=dict(assigner=dict(match_costs=[
        dict(type="ClassificationCost", weight=1.0), dict(type="ddq_port.NormalizedBBoxL1Cost", weight=5.0),
        dict(type="IoUCost", iou_mode="giou", weight=2.0),
    ])),
)
"""


def config_of_2x(name: str) -> str:
    """Return the text of a config of 2.x."""
    model, training, _ = TRAININGS[name]
    return (CONFIGS / "legacy" / f"{model}.py").read_text("utf-8") + training
