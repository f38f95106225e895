"""Faults in the head's predictions and in the final detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.models.ddq_detr import head

from .fault import Fault
from .planting import Apply, around, output, patching, replaced, replacing, result, setting, shadowing

#: Detections are what the head's `predict` makes.
_HEAD = "bbox_head"


def _references_late(right: Callable, hidden: Tensor, references: Sequence[Tensor], layout: Any) -> Any:
    return right(hidden, references[1:], layout)


def _layers_reversed(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs[0], outputs[1].flip(0)


def _nan_in_one_box(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    logits, boxes = outputs
    if not torch.is_grad_enabled():
        boxes = boxes.clone()
        boxes[0, 0, 5, 2] = float("nan")
    return logits, boxes


def _infinite_row(x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return x
    changed = x.clone()
    changed[-1, 0] = float("inf")
    return changed


def _detections(change: Callable[..., InstanceData]) -> Apply:
    """Put ``change(right, logits, boxes, meta, limit, rescale)`` in place of the head's ``detections``."""
    return patching(head, "detections", change)


def _meta(**values: Callable[[Any], Any]) -> Apply:
    """Change entries of the image's meta data before the detections are made."""

    def changed(right: Callable, logits: Tensor, boxes: Tensor, meta: dict, *rest: Any) -> InstanceData:
        return right(logits, boxes, {**meta, **{key: change(meta[key]) for key, change in values.items()}}, *rest)

    return _detections(changed)


def _not_clamped(right: Callable, *args: Any) -> InstanceData:
    with replaced(Tensor, "clamp_", lambda self, **bounds: self):
        return right(*args)


def _clamped_to_height_first(right: Callable, logits: Tensor, boxes: Tensor, meta: dict, *rest: Any) -> InstanceData:
    clamp, swap = Tensor.clamp_, dict(zip(meta["img_shape"], meta["img_shape"][::-1]))
    with replaced(Tensor, "clamp_", lambda self, min, max: clamp(self, min, swap[max])):
        return right(logits, boxes, meta, *rest)


def _labels_from_one(found: InstanceData) -> InstanceData:
    found.labels = found.labels + 1
    return found


def _above_threshold(found: InstanceData) -> InstanceData:
    return found[found.scores > found.scores[20]]


def _worst(right: Callable, *args: Any) -> InstanceData:
    topk = Tensor.topk
    with replaced(Tensor, "topk", lambda scores, k: topk(-scores, k)):
        return right(*args)


def _sigmoid_twice(right: Callable, logits: Tensor, *rest: Any) -> InstanceData:
    return right(logits.sigmoid(), *rest)


def _by_label(found: InstanceData) -> InstanceData:
    return found[found.labels.argsort(stable=True)]


def _found(change: Callable[[InstanceData], InstanceData]) -> Apply:
    """Change the detections of each image."""
    return _detections(lambda right, *args: change(right(*args)))


FAULTS = (
    Fault("off_by_one_reference", "off-by-one layer", "bbox_head", around("bbox_head", "forward", _references_late),
          says="output 1"),
    Fault("off_by_one_aux_branch", "off-by-one layer", "bbox_head", shadowing("bbox_head", "aux_cls_branches",
          lambda module: [module._modules["aux_cls_branches"][i] for i in (2, 0, 1, 3)])),
    Fault("box_layers_reversed", "multi-output swap", "bbox_head", output("bbox_head", _layers_reversed),
          says="output 1"),
    Fault("main_branch_for_dense", "wrong branch", "bbox_head", shadowing("bbox_head", "aux_cls_branches",
          lambda module: [*module._modules["cls_branches"][:-1], module._modules["aux_cls_branches"][-1]])),
    Fault("sparse_through_dense_branch", "wrong branch", "bbox_head", shadowing("bbox_head", "cls_branches",
          lambda module: [*module._modules["cls_branches"][:2], module._modules["aux_cls_branches"][2],
                          module._modules["cls_branches"][3]])),
    Fault("anchor_clamped", "clamp", "bbox_head",
          patching(head, "inverse_sigmoid", lambda right, x: right(x, eps=1e-2)), says="output 1"),
    Fault("branch_without_activation", "activation", "bbox_head.reg_branches.3.1",
          replacing("bbox_head.reg_branches.3.1", nn.Identity)),
    Fault("nan_in_one_box", "NaN or Inf", "bbox_head", output("bbox_head", _nan_in_one_box), says="output 1"),
    Fault("infinite_unused_token", "NaN or Inf", "query_map", output("query_map", _infinite_row)),
    Fault("queries_shuffled_in_logits", "permuted queries", "bbox_head.cls_branches.1",
          output("bbox_head.cls_branches.1", lambda x: x.flip(1))),
    Fault("classes_rolled", "permuted channels", "bbox_head.cls_branches.2",
          output("bbox_head.cls_branches.2", lambda x: x.roll(1, -1))),
    Fault("fewer_detections", "top-k count", "bbox_head", setting("bbox_head.test_cfg", max_per_img=49),
          says="tap `detections`"),
    Fault("worst_detections", "ascending sort", "bbox_head", _detections(_worst), says="tap `detections`"),
    Fault("sigmoid_twice_on_detections", "sigmoid twice", "bbox_head", _detections(_sigmoid_twice),
          says="tap `detections`"),
    Fault("detections_not_clamped", "clamp", _HEAD, _detections(_not_clamped)),
    Fault("clamped_to_height_first", "clamp", _HEAD, _detections(_clamped_to_height_first)),
    Fault("not_rescaled", "box rescaling", _HEAD,
          _detections(lambda right, *args: right(*args[:-1], False))),
    Fault("rescaled_the_wrong_way", "box rescaling", _HEAD,
          _meta(scale_factor=lambda factors: tuple(1 / x for x in factors))),
    Fault("rescaled_height_first", "box rescaling", _HEAD, _meta(scale_factor=lambda factors: factors[::-1])),
    Fault("detections_transposed", "wrong image size", _HEAD, _meta(img_shape=lambda shape: shape[::-1])),
    Fault("labels_from_one", "label offset", _HEAD, _found(_labels_from_one)),
    Fault("score_threshold", "score threshold", _HEAD, _found(_above_threshold)),
    Fault("sorted_by_label", "result order", _HEAD, _found(_by_label)),
    Fault("images_swapped", "batch mix-up", _HEAD, result("bbox_head", "predict", lambda found: found[::-1])),
)  # fmt: skip
