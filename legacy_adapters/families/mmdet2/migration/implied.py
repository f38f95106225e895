"""Defaults of dicts that have no type: those that the code of MMDetection 3.3.0 asks for with ``get``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

#: Glob of a path -> defaults; all that fit count.
_IMPLIED: dict[str, dict[str, Any]] = {
    "model": dict(train_cfg=None, test_cfg=None),
    "model.test_cfg": dict(nms_pre=-1, score_thr=0, min_bbox_size=-1),
    "model.test_cfg.rpn": dict(nms_pre=-1, min_bbox_size=-1),
    "model.test_cfg.rcnn": dict(mask_thr_binary=None),
    "model.train_cfg.rpn_proposal": dict(nms_pre=-1, min_bbox_size=-1),
    "model.train_cfg": dict(sampler=dict(type="PseudoSampler")),
    "param_scheduler.*": dict(convert_to_iter_based=False),
    "custom_hooks.*": dict(gamma=2000, interval=1, update_buffers=False, priority="NORMAL"),
    "*attn_cfg*": dict(dropout=0.0),
    "model.train_cfg*": dict(pos_weight=-1, allowed_border=-1),
    "*norm_cfg": dict(requires_grad=True),
    "*_dataloader": dict(batch_size=1, drop_last=False, sampler=dict(type="DefaultSampler", shuffle=False)),
    "train_dataloader": dict(sampler=dict(type="DefaultSampler", shuffle=True)),
    "optim_wrapper": dict(constructor="DefaultOptimWrapperConstructor", paramwise_cfg=None),
    "model.*loss_cls*": dict(bg_cls_weight=None),
    "optim_wrapper.clip_grad": dict(norm_type=2.0),
    "optim_wrapper.paramwise_cfg": dict(
        bias_lr_mult=1.0, bias_decay_mult=1.0, norm_decay_mult=1.0, dwconv_decay_mult=1.0, dcn_offset_lr_mult=1.0,
        bypass_duplicate=False,
    ),
    "optim_wrapper.paramwise_cfg.custom_keys.*": dict(lr_mult=1.0, decay_mult=1.0),
    "auto_scale_lr": dict(enable=False),
    "": dict(resume=False, find_unused_parameters=False),
    "*.filter_cfg": dict(filter_empty_gt=False, min_size=0),
    "*upsample_cfg": dict(mode="nearest"),
    "*.pad_val": dict(masks=0, seg=255),
}  # fmt: skip


def implied(path: str) -> dict[str, Any]:
    """Return the defaults of a dict at a path."""
    found: dict[str, Any] = {}
    for pattern, defaults in _IMPLIED.items():
        if fnmatchcase(path, pattern):
            found.update(defaults)
    return found
