"""Faults of proposals and refinement stages; planted in DDQ R-CNN."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from typing import Any

import torch
from mmdet.models.roi_heads import SparseRoIHead
from mmdet.models.task_modules.assigners.match_cost import BBoxL1Cost
from torch import Tensor, nn

from ddq_port.models.ddq_rcnn import rpn

from .fault import RCNN, Fault
from .planting import Plant, labels_exchanged, replacing, setting, with_result

_RPN, _ROI = ("rpn_head",), ("roi_head",)
#: Proposals are given to the refinement stages by the detector, after the head of proposals has made them.
_HANDED = (*_ROI, *_RPN, "the detector")
_REGIONS, _FIRST = "roi_head.bbox_roi_extractor.0", "roi_head.bbox_head.0"


def _rcnn(name: str, where: tuple[str, ...], plant: Plant) -> Fault:
    return Fault(name, RCNN, where, plant)


def _levels(change: Any) -> Plant:
    """Give the head of proposals other levels."""

    def plant(model: nn.Module) -> None:
        for name in ("loss_and_predict", "predict"):
            right = getattr(model.rpn_head, name)
            setattr(model.rpn_head, name, lambda x, *args, right=right: right(change(x), *args))

    return plant


def _proposals(change: Any) -> Plant:
    """Change the proposals of each image, in place."""

    def changed(right: Any) -> Any:
        def proposals(*args: Any) -> Any:
            found = right(*args)
            for each in found:
                change(each)
            return found

        return proposals

    return replacing(rpn.DDQFCNRPN, "proposals", changed)


def _with(name: str, change: Any) -> Plant:
    def apply(proposals: Any) -> None:
        setattr(proposals, name, change(getattr(proposals, name)))

    return _proposals(apply)


def _features_exchanged(model: nn.Module) -> None:
    right = model.rpn_head.compress.forward
    model.rpn_head.compress.forward = lambda x: right(x.roll(x.size(-1) // 2, -1))


def _undetached(model: nn.Module) -> None:
    """Let gradients of the refinement stages reach the features of proposals."""

    class Undetached(Tensor):
        def detach(self) -> Tensor:
            return self.as_subclass(Tensor)

    right = rpn.torch.cat

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        @staticmethod
        def cat(*args: Any, **kwargs: Any) -> Tensor:
            return right(*args, **kwargs).as_subclass(Undetached)

    rpn.torch = Torch()


def _worst_first(model: nn.Module) -> None:
    right = rpn.DDQFCNRPN.proposals

    def proposals(self: Any, main: Any, queries: Any, metas: Any) -> Any:
        return right(self, main, [each.at(torch.arange(len(each.scores)).flip(0)[:20]) for each in queries], metas)

    rpn.DDQFCNRPN.proposals = proposals


def _coder(name: str, value: Any) -> Plant:
    return setting(f"{_FIRST}.bbox_coder.{name}", value)


def _one_head_for_both(model: nn.Module) -> None:
    model.roi_head.bbox_head[1].forward = model.roi_head.bbox_head[0].forward


def _unaligned(model: nn.Module) -> None:
    for layer in model.roi_head.bbox_roi_extractor[0].roi_layers:
        layer.aligned = False


def _fewer_samples(model: nn.Module) -> None:
    for layer in model.roi_head.bbox_roi_extractor[0].roi_layers:
        layer.sampling_ratio = 1


def _pooled(model: nn.Module) -> None:
    """Pool regions without the finest level."""
    extractor = model.roi_head.bbox_roi_extractor[0]
    right = extractor.map_roi_levels
    extractor.map_roi_levels = lambda rois, count: right(rois, count).clamp(min=1)


def _other_cost(model: nn.Module) -> None:
    model.roi_head.bbox_assigner[0].match_costs[1] = BBoxL1Cost(weight=5.0)


def _features_kept(model: nn.Module) -> None:
    """Give the second stage the features that the first one was given."""
    right, given = model.roi_head._bbox_forward, {}

    def forward(stage: int, x: Any, rois: Any, features: Any, metas: Any) -> Any:
        given.setdefault(0, features) if stage else given.update({0: features})
        return right(stage, x, rois, given[0], metas)

    model.roi_head._bbox_forward = forward


FAULTS = (
    _rcnn("levels_from_the_finest", ("the detector", *_RPN), _levels(lambda x: (x[0], *x[:-1]))),
    _rcnn("levels_backwards", ("the detector", *_RPN), _levels(lambda x: (x[1], x[0], *x[2:]))),
    _rcnn("fewer_proposals", (*_HANDED, _REGIONS), setting("rpn_head.num_distinct_queries", 30)),
    _rcnn("proposals_worst_first", _HANDED, _worst_first),
    _rcnn("proposals_grow", _HANDED, _with("bboxes", lambda boxes: boxes * 1.01)),
    _rcnn("proposals_clipped", _HANDED, _with("bboxes", lambda boxes: boxes.clamp(0, 64))),
    _rcnn("features_of_another", _HANDED, _with("features", lambda features: features.roll(1, 0))),
    _rcnn("features_exchanged", ("rpn_head.compress", *_HANDED), _features_exchanged),
    _rcnn("features_not_detached", (*_RPN, "rpn_head.compress", "rpn_head.cls_convs.3.activate",
                                    "rpn_head.reg_convs.3.activate"), _undetached),
    _rcnn("extent_exchanged", (*_HANDED, f"{_FIRST}.loss_bbox"), _with("imgs_whwh", lambda extent: extent.roll(1, -1))),
    _rcnn("finest_scale", (_REGIONS,), setting(f"{_REGIONS}.finest_scale", 28)),
    _rcnn("finest_level_unused", (_REGIONS,), _pooled),
    _rcnn("regions_unaligned", tuple(f"roi_head.bbox_roi_extractor.0.roi_layers.{n}" for n in range(6)), _unaligned),
    _rcnn("fewer_samples", tuple(f"roi_head.bbox_roi_extractor.0.roi_layers.{n}" for n in range(6)), _fewer_samples),
    _rcnn("coder_stds", (*_ROI, _FIRST), _coder("stds", (0.1, 0.1, 0.2, 0.2))),
    _rcnn("boxes_clipped", (*_ROI, _FIRST), _coder("clip_border", True)),
    _rcnn("one_head_for_both", ("roi_head.bbox_head.1", *_ROI), _one_head_for_both),
    _rcnn("features_kept", _ROI, _features_kept),
    _rcnn("stage_cost_without_shares", _ROI, _other_cost),
    _rcnn("stage_weight", ("s0.loss_cls", "stage0_loss_cls", *_ROI), setting("roi_head.stage_loss_weights", [2, 1])),
    _rcnn("focal_alpha", (f"{_FIRST}.loss_cls",), setting(f"{_FIRST}.loss_cls.alpha", 0.5)),
    _rcnn("stage_box_loss_weight", (f"{_FIRST}.loss_bbox",), setting(f"{_FIRST}.loss_bbox.loss_weight", 2.0)),
    _rcnn("stage_iou_loss_weight", (f"{_FIRST}.loss_iou",), setting(f"{_FIRST}.loss_iou.loss_weight", 1.0)),
    _rcnn("ffn_norm_eps", (f"{_FIRST}.ffn_norm",), setting(f"{_FIRST}.ffn_norm.eps", 1e-3)),
    _rcnn("labels_exchanged_of_stages", (*_ROI, "the detector"),
          replacing(SparseRoIHead, "predict_bbox", with_result(lambda images: [*map(labels_exchanged, images)]))),
    _rcnn("fewer_detections_of_stages", (*_ROI, "the detector"), setting("roi_head.test_cfg.max_per_img", 20)),
)
