"""Faults of backbone, neck and of the heads that are trained beside the query head."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

import torch
from torch import Tensor, nn

from ddq_port.models.co_detr import roi_head
from ddq_port.models.co_detr.dino_head import CoDINOHead
from tests.ddq_main.fault import Fault
from tests.ddq_main.planting import Plant, setting

from .faults_queries import DINO, SWIN

_RPN, _ROI, _ATSS = "rpn_head", "roi_head.0", "bbox_head.0"
#: Whose code hands on what a head was trained with.
_HANDED = ("query_head", "the detector", _ROI)


def _dino(name: str, where: tuple[str, ...], plant: Plant) -> Fault:
    return Fault(name, DINO, where, plant)


def _of_the_neck(model: nn.Module) -> None:
    """Give the further heads the neck's maps in place of the encoder's, and the query head's last one."""
    right = CoDINOHead.loss

    def loss(self: CoDINOHead, x: tuple, samples: list) -> tuple:
        terms, features = right(self, x, samples)
        return terms, [*x, features[-1]]

    CoDINOHead.loss = loss


def _merged_by_rows(model: nn.Module) -> None:
    """Put the four tokens of a patch side by side along the rows."""
    for stage in model.backbone.layers[:-1]:
        norm = stage.downsample.norm
        norm.register_forward_pre_hook(lambda module, given: (_exchanged(given[0]),))


def _exchanged(merged: Tensor) -> Tensor:
    """Exchange the second and the third quarter of the channels [..., 4 * dim]."""
    return torch.cat([merged.chunk(4, -1)[part] for part in (0, 2, 1, 3)], -1)


FAULTS = (
    _dino("backbone_norm_eps", ("backbone.layer1.0.bn1",), setting("backbone.layer1.0.bn1.eps", 1e-3)),
    _dino("neck_norm_eps", ("neck.convs.0.gn",), setting("neck.convs.0.gn.eps", 1e-3)),
    _dino("maps_of_the_neck", (_RPN, "rpn_head.rpn_conv", "the detector", *_HANDED), _of_the_neck),
    _dino("proposals_nms", (_RPN,), setting("proposal_cfg.nms.iou_threshold", 0.9)),
    _dino("proposals_cut", (_RPN, "the detector"), setting("proposal_cfg.max_per_img", 50)),
    _dino("proposals_samples", (_RPN,), setting("rpn_head.sampler.num", 32)),
    _dino("proposals_positive", (_RPN,), setting("rpn_head.assigner.pos_iou_thr", 0.5)),
    _dino("proposals_loss", ("rpn_head.loss_bbox", "loss_rpn_bbox"), setting("rpn_head.loss_bbox.loss_weight", 1.0)),
    _dino("regions_samples", (_ROI,), setting("roi_head.0.bbox_sampler.num", 32)),
    _dino("regions_without_objects", (_ROI,), setting("roi_head.0.bbox_sampler.add_gt_as_proposals", False)),
    _dino("regions_positive", (_ROI,), setting("roi_head.0.bbox_assigner.pos_iou_thr", 0.3)),
    _dino("regions_levels", ("roi_head.0.bbox_roi_extractor",), setting("roi_head.0.bbox_roi_extractor.finest_scale", 14)),
    _dino("regions_sampling", ("roi_head.0.bbox_roi_extractor.roi_layers.0",),
          setting("roi_head.0.bbox_roi_extractor.roi_layers.0.sampling_ratio", 2)),
    _dino("regions_stds", ("roi_head.0.bbox_head", "roi_head.0.bbox_head.loss_bbox", _ROI),
          setting("roi_head.0.bbox_head.bbox_coder.stds", (0.1, 0.1, 0.1, 0.1))),
    _dino("regions_given_on", _HANDED, lambda model: setattr(roi_head, "MOST", 20)),
    _dino("anchors_topk", (_ATSS,), setting("bbox_head.0.assigner.topk", 5)),
    _dino("anchors_stds", (_ATSS, "bbox_head.0.loss_bbox"),
          setting("bbox_head.0.bbox_coder.stds", (0.1, 0.1, 0.1, 0.1))),
    _dino("anchors_centres", ("bbox_head.0.loss_centerness", "loss_centerness1"),
          setting("bbox_head.0.loss_centerness.loss_weight", 1.0)),
    _dino("anchors_norm_eps", ("bbox_head.0.cls_convs.0.gn",), setting("bbox_head.0.cls_convs.0.gn.eps", 1e-3)),
    Fault("swin_branches_kept", SWIN, ("backbone.layers.1.blocks.0", "backbone.layers.1.blocks.0.drop_path"),
          setting("backbone.layers.1.blocks.0.drop_path.chance", 0.0)),
    Fault("swin_windows_not_shifted", SWIN, ("backbone.layers.0.blocks.1",), setting("backbone.layers.0.blocks.1.shift", 0)),
    Fault("swin_scale", SWIN, ("backbone.layers.0.blocks.0.attn",), setting("backbone.layers.0.blocks.0.attn.scale", 0.3)),
    Fault("swin_patches_merged_by_rows", SWIN, ("backbone.layers.0.downsample", "backbone.layers.0.downsample.norm"),
          _merged_by_rows),
)  # fmt: skip
