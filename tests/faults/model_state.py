"""Faults of state that should not be there, and of sums over images that have different numbers of objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.models.ddq_detr import aux_loss, detector
from ddq_port.models.ddq_detr.aux_loss import DenseTargets

from .fault import DETECTOR, Fault
from .planting import Apply, around, patching, result

_AUX = "bbox_head.aux_loss_for_dense"


def _carried(path: str) -> Apply:
    """Add to what a module gives a little of what it gave the call before."""

    def apply(model: Any) -> None:
        last: list[Tensor] = []

        def forward(right: Callable, x: Tensor) -> Tensor:
            out = right(x)
            mean = out.detach().mean()
            changed = out + 0.1 * last.pop() if last else out
            last.append(mean)
            return changed

        around(path, "forward", forward)(model)

    return apply


def _from_image_to_image(right: Callable, boxes: Tensor, scores: Tensor, *rest: Any) -> Tensor:
    """Remember the best score of the images before and take off what is below a thousandth of it."""
    best = _from_image_to_image.best
    keep = right(boxes, scores, *rest)
    _from_image_to_image.best = max(best, float(scores.max()))
    return keep if best == 0.0 else keep.roll(1)


_from_image_to_image.best = 0.0


def _by_place_in_batch(right: Callable, memory: Tensor, *rest: Any) -> Any:
    weights = 1 + 1e-3 * torch.arange(len(memory), dtype=memory.dtype)
    return right(memory * weights[:, None, None], *rest)


def _mean_of_images(right: Callable, losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """Normalise each image by itself, then average over the images."""
    return [loss / factor.clamp(min=1) / len(losses) for loss, factor in zip(losses, factors)]


def _at_least(number: float) -> Callable[..., Any]:
    def changed(right: Callable, losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
        factor = sum(factors).clamp(min=number).item()
        return [loss / factor for loss in losses]

    return changed


def _positives_per_image(right: Callable, *args: Any, **kwargs: Any) -> tuple:
    *lists, positive, negative = right(*args, **kwargs)
    return (*lists, -(-positive // len(lists[0])) * len(lists[0]), negative)


def _factors_of_objects(targets: tuple) -> tuple:
    *lists, positive, negative = targets
    return (*lists, max(positive, 8), negative)


def _weights_without_objects(right: Callable, scores: Tensor, boxes: Tensor, gt: InstanceData, meta: dict) -> Any:
    """Train an image without objects on background, which the code it comes from does not."""
    targets: DenseTargets = right(scores, boxes, gt, meta)
    weights = torch.ones_like(targets.label_weights)
    return DenseTargets(targets.labels, weights, targets.bboxes, targets.quality)


def _no_loss_without_objects(right: Callable, bboxes: Tensor, target: DenseTargets, classes: int) -> Any:
    loss, weight = right(bboxes, target, classes)
    return (loss + 0.01 * bboxes.sum(), weight) if not (target.labels < classes).any() else (loss, weight)


def _images_without_objects_left_out(right: Callable, logits: list, boxes: list, gts: list, metas: list) -> Any:
    """Leave images without objects out of the class loss."""
    kept = [i for i, gt in enumerate(gts) if len(gt.labels)] or list(range(len(gts)))
    return right(*([x[i] for i in kept] for x in (logits, boxes, gts, metas)))


def _class_0_without_objects(right: Callable, *args: Any, **kwargs: Any) -> tuple:
    """Make every query of a batch without objects one of class 0 instead of background."""
    labels, *rest = right(*args, **kwargs)
    objects = any(bool((one < one.max()).any()) for one in labels)
    return (labels if objects else [torch.zeros_like(one) for one in labels], *rest)


def _object_without_objects(right: Callable, logits: Tensor, boxes: Tensor, gt: InstanceData, meta: dict) -> tuple:
    """Invent an object for an image that has none, to spare the special case."""
    if len(gt.labels) == 0:
        height, width = meta["img_shape"]
        gt = InstanceData(bboxes=boxes.new_tensor([[0, 0, width, height]]), labels=logits.new_zeros(1).long())
    return right(logits, boxes, gt, meta)


FAULTS = (
    Fault("norm_remembers_last_call", "state of the call before", "memory_trans_norm", _carried("memory_trans_norm"),
          setting="batch"),
    Fault("query_map_remembers_last_image", "state of the call before", "query_map", _carried("query_map"),
          setting="batch"),
    Fault("convolution_remembers_last_batch", "state of the call before", "backbone.layer4.1.conv1",
          _carried("backbone.layer4.1.conv1"), setting="batch"),
    Fault("selection_remembers_last_image", "state of the image before", DETECTOR,
          patching(detector, "select_distinct", _from_image_to_image), says="tap `distinct`", setting="batch"),
    Fault("image_scaled_by_place_in_batch", "place in the batch", DETECTOR,
          around("", "_select_tokens", _by_place_in_batch), says="`query_map`", setting="batch"),
    Fault("dense_mean_of_images", "average over images", _AUX,
          patching(aux_loss, "_normalise", _mean_of_images), setting="batch"),
    Fault("dense_normaliser_at_least_30", "least normaliser", _AUX,
          patching(aux_loss, "_normalise", _at_least(30.0)), setting="batch"),
    Fault("positives_rounded_to_images", "average over images", "bbox_head",
          around("bbox_head", "get_targets", _positives_per_image), says="`avg_factor`", setting="uneven"),
    Fault("at_least_8_positives", "least normaliser", "bbox_head",
          result("bbox_head", "get_targets", _factors_of_objects), says="`avg_factor`", setting="empty"),
    Fault("dense_weights_without_objects", "image without objects", _AUX,
          around(_AUX, "targets", _weights_without_objects), setting="uneven"),
    Fault("dense_box_loss_without_objects", "image without objects", _AUX,
          around(_AUX, "_bbox_loss", _no_loss_without_objects), setting="uneven"),
    Fault("images_without_objects_left_out", "image without objects", "bbox_head",
          around("bbox_head", "_matching_loss", _images_without_objects_left_out), says="`bbox_head.loss_cls`",
          setting="uneven"),
    Fault("object_without_objects", "image without objects", "bbox_head",
          around("bbox_head", "_get_targets_single", _object_without_objects), setting="uneven"),
    Fault("class_0_without_objects", "batch without objects", "bbox_head",
          around("bbox_head", "get_targets", _class_0_without_objects), says="`bbox_head.loss_cls`", setting="empty"),
)  # fmt: skip
