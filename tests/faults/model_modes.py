"""Faults of dtypes and modes: rounding to half precision or to whole numbers, training for evaluation, lost graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.models.ddq_detr import detector, head
from ddq_port.models.ddq_detr.aux_loss import DenseTargets

from .fault import DETECTOR, INCOMPARABLE, Fault
from .planting import Apply, around, at, output, patching, result

_AUX = "bbox_head.aux_loss_for_dense"


def _half(x: Tensor) -> Tensor:
    return x.half().to(x.dtype)


def _found(change: Callable[[InstanceData], None]) -> Apply:
    def changed(right: Callable, *args: Any) -> InstanceData:
        found = right(*args)
        change(found)
        return found

    return patching(head, "detections", changed)


def _whole_boxes(found: InstanceData) -> None:
    found.bboxes = found.bboxes.int().to(found.bboxes.dtype)


def _half_scores(found: InstanceData) -> None:
    found.scores = _half(found.scores)


def _short_labels(found: InstanceData) -> None:
    found.labels = found.labels.int()


def _half_quality(targets: DenseTargets) -> DenseTargets:
    return DenseTargets(targets.labels, targets.label_weights, targets.bboxes, _half(targets.quality))


def _whole_boxes_for_denoising(right: Callable, gt_bboxes: Tensor, groups: int) -> Tensor:
    return right((gt_bboxes * 64).round() / 64, groups)


def _ratios_in_half_precision(dicts: tuple[dict, dict]) -> tuple[dict, dict]:
    ratios = _half(dicts[0]["valid_ratios"])
    for inputs in dicts:
        inputs["valid_ratios"] = ratios
    return dicts


def _sizes_of_blocks(right: Callable, meta: dict, like: Tensor) -> Tensor:
    """Take the size of an image in whole blocks of 32 pixels."""
    return right({**meta, "img_shape": tuple(side // 32 * 32 for side in meta["img_shape"])}, like)


def _dropping(path: str) -> Apply:
    """Leave a dropout active at inference."""

    def apply(model: nn.Module) -> None:
        dropout = at(model, path)
        dropout.p = 0.1
        around(path, "train", lambda right, mode=True: right(True))(model)
        dropout.train()

    return apply


def _without_graph(path: str, method: str = "forward") -> Apply:
    def changed(right: Callable, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return right(*args, **kwargs)

    return around(path, method, changed)


def _one_detached(index: int) -> Callable[[tuple], tuple]:
    return lambda levels: tuple(x.detach() if i == index else x for i, x in enumerate(levels))


def _in_training_mode(right: Callable, images: Tensor, samples: list, **kwargs: Any) -> Any:
    """Predict with the backbone in training mode, as if nobody had called ``eval``."""
    backbone = right.__self__.backbone
    before = {module: module.training for module in backbone.modules()}
    for module in before:
        module.training = True
    try:
        return right(images, samples, **kwargs)
    finally:
        for module, mode in before.items():
            module.training = mode


def _images_scaled_in_place(right: Callable, images: Tensor) -> Any:
    """Change the caller's images, so that whatever uses them next finds others."""
    out = right(images)
    with torch.no_grad():
        images.mul_(0.5)
    return out


def _loss_changes_objects(right: Callable, images: Tensor, samples: list) -> Any:
    terms = right(images, samples)
    for sample in samples:
        sample.gt_instances.bboxes.mul_(0.5)
    return terms


FAULTS = (
    Fault("boxes_of_whole_pixels", "truncated to whole numbers", "bbox_head", _found(_whole_boxes)),
    Fault("sizes_of_whole_blocks", "truncated to whole numbers", "bbox_head",
          patching(head, "image_size", _sizes_of_blocks), setting="batch"),
    Fault("denoising_boxes_on_a_grid", "truncated to whole numbers", DETECTOR,
          around("dn_query_generator", "generate_dn_bbox_query", _whole_boxes_for_denoising),
          says="reference_points"),
    Fault("scores_of_half_precision", "half precision on the way", "bbox_head", _found(_half_scores)),
    Fault("quality_of_half_precision", "half precision on the way", _AUX, result(_AUX, "targets", _half_quality),
          says="`target.1`"),
    Fault("ratios_of_half_precision", "half precision on the way", DETECTOR,
          result("", "pre_transformer", _ratios_in_half_precision), says="valid_ratios", setting="batch"),
    Fault("encoding_of_half_precision", "half precision on the way", "positional_encoding",
          output("positional_encoding", _half)),
    Fault("labels_of_32_bits", "other integer type", "bbox_head", _found(_short_labels)),
    Fault("dense_of_32_bits", "other integer type", DETECTOR,
          patching(detector, "select_dense", lambda right, *args: right(*args).int()), says="tap `dense`"),
    Fault("dropout_at_inference", "training mode at inference", "encoder.layers.1.ffn.layers.2",
          _dropping("encoder.layers.1.ffn.layers.2")),
    Fault("attention_dropout_at_inference", "training mode at inference", "decoder.layers.1.cross_attn.dropout",
          _dropping("decoder.layers.1.cross_attn.dropout")),
    Fault("backbone_in_training_mode", "training mode at inference", "backbone.bn1",
          around("", "predict", _in_training_mode)),
    Fault("aux_branch_without_graph", "graph lost", "bbox_head.aux_reg_branches.1",
          _without_graph("bbox_head.aux_reg_branches.1")),
    Fault("position_without_graph", "graph lost", "decoder.ref_point_head", _without_graph("decoder.ref_point_head"),
          outcome=INCOMPARABLE),
    Fault("coarsest_level_detached", "graph lost", "neck", result("neck", "forward", _one_detached(3))),
    Fault("denoising_loss_without_graph", "graph lost", "bbox_head", _without_graph("bbox_head", "loss_dn")),
    Fault("images_scaled_in_place", "inputs changed in place", DETECTOR,
          around("", "extract_feat", _images_scaled_in_place), setting="batch"),
    Fault("objects_scaled_in_place", "inputs changed in place", DETECTOR, around("", "loss", _loss_changes_objects),
          setting="batch"),
)  # fmt: skip
