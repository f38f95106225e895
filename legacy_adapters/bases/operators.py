"""What detectors of MMDetection, 2.x and 3.x, decide with mmcv's operators and in their RoI heads; whose operators run."""

from __future__ import annotations

import sys
from typing import Any, Dict, List, Optional

import torch

from legacy_adapters.recording.taps import Decision, Tap, the_only, within

#: How the taps are called in reports.
SUPPRESSION, LEVELS, ASSIGNED = "nms", "levels", "assigned"
#: Where a code base has its class ``MaxIoUAssigner``.
_ASSIGNERS = ("mmdet.models.task_modules.assigners.max_iou_assigner", "mmdet.core.bbox.assigners.max_iou_assigner")


def suppressions() -> List[Tap]:
    """Return the tap of mmcv's NMS operator, which all its functions and all heads come down to.

    The operator is given boxes that were moved apart class by class, so that one plain NMS does for all classes; what
    it keeps is recorded uncut.
    """
    from mmcv.ops.nms import ext_module

    def read(result: torch.Tensor, *args: Any, **kwargs: Any) -> Decision:
        return {"keep": result}

    def write(decision: Decision, boxes: torch.Tensor, *args: Any, **kwargs: Any) -> Optional[torch.Tensor]:
        keep = the_only(decision)
        return keep.to(boxes.device) if keep is not None and within(keep, len(boxes)) else None

    def basis(
        boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int, **kwargs: Any
    ) -> Dict[str, Any]:
        # boxes first: where there are others, their number, by which nothing is cut here, says less
        given = dict(boxes=boxes, scores=scores, iou_threshold=iou_threshold, max_num=len(boxes))
        return dict(given, **(dict(offset=offset) if offset else {}))

    return [Tap(ext_module, "nms", lambda *args, **kwargs: SUPPRESSION, read, write, basis=basis, first="boxes")]


def roi_levels(extractor: Any) -> List[Tap]:
    """Return the tap of the level of the pyramid that each region is pooled from.

    Args:
        extractor: the code base's class ``SingleRoIExtractor``.
    """

    def read(result: torch.Tensor, *args: Any, **kwargs: Any) -> Decision:
        return {"levels": result}

    def write(decision: Decision, own: Any, rois: torch.Tensor, num_levels: int) -> Optional[torch.Tensor]:
        levels = the_only(decision)
        fits = levels is not None and levels.shape == rois.shape[:1] and within(levels, num_levels)
        return levels.to(rois.device) if fits else None

    def basis(own: Any, rois: torch.Tensor, num_levels: int) -> Dict[str, Any]:
        scale = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        heights = torch.log2(scale / own.finest_scale + 1e-6)
        return dict(heights=heights, lowest=0, highest=num_levels - 1)

    return [Tap(extractor, "map_roi_levels", lambda *args, **kwargs: LEVELS, read, write, basis=basis, first="self")]


def assignments(module: Any) -> List[Tap]:
    """Return the tap of which object each anchor or proposal is assigned to by the thresholds of ``MaxIoUAssigner``.

    Anchors around a small object overlap it equally but for rounding, so that this says which of them it has.

    Args:
        module: that holds the class, and its ``AssignResult``.
    """

    def read(result: Any, *args: Any, **kwargs: Any) -> Decision:
        return {"gt_inds": result.gt_inds}

    def write(decision: Decision, own: Any, overlaps: torch.Tensor, gt_labels: Any = None) -> Any:
        given, (objects, boxes) = the_only(decision), overlaps.shape
        if given is None or not overlaps.numel() or given.shape != (boxes,) or not within(given, objects + 1):
            return None
        given, labels = given.to(overlaps.device), None
        if gt_labels is not None:
            labels = torch.where(given > 0, gt_labels[(given - 1).clamp(min=0)], -1)
        return module.AssignResult(objects, given, overlaps.max(dim=0).values, labels=labels)

    def basis(own: Any, overlaps: torch.Tensor, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        negative = own.neg_iou_thr if isinstance(own.neg_iou_thr, tuple) else (0.0, own.neg_iou_thr)
        least = own.min_pos_iou if own.match_low_quality else float("inf")
        thresholds = dict(positive=own.pos_iou_thr, lowest=negative[0], negative=negative[1], least=least)
        # in the precision that they are compared in
        numbers = {name: overlaps.new_tensor(threshold) for name, threshold in thresholds.items()}
        return dict(overlaps=overlaps, **numbers, all_best=own.gt_max_assign_all)

    def named(own: Any, *args: Any, **kwargs: Any) -> str:
        return ASSIGNED

    return [Tap(module.MaxIoUAssigner, "assign_wrt_overlaps", named, read, write, basis=basis, first="self")]


def taps() -> List[Tap]:
    """Return all of them, of the mmcv and the mmdet of the running process."""
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    assigners = (sys.modules[name] for name in _ASSIGNERS if name in sys.modules)
    return [*suppressions(), *roi_levels(SingleRoIExtractor), *(tap for one in assigners for tap in assignments(one))]


def mmcv_ops() -> str:
    """Tell where mmcv's operators come from: the compiled file, or which stand-in for it."""
    extension = sys.modules.get("mmcv._ext")
    origin = getattr(getattr(extension, "__spec__", None), "origin", None)
    return str(getattr(extension, "__file__", None) or "stand-in {}".format(origin))
