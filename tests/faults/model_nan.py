"""Faults that make something not finite, in one module, sometimes in one image only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .fault import Fault
from .planting import Apply, around, output

_NAN, _INF = float("nan"), float("inf")


def _spoiled(value: float, image: int | None = None) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        spoiled = x.clone()
        spoiled[slice(None) if image is None else image] = value
        return spoiled

    return change


def _one_number(x: Tensor) -> Tensor:
    spoiled = x.clone()
    spoiled.view(-1)[17] = _NAN
    return spoiled


def _zero_by_zero(x: Tensor) -> Tensor:
    return x / (x.detach() - x.detach())


def _in_training(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: change(x) if torch.is_grad_enabled() else x


def _spoiled_norm(right: Callable, x: Tensor) -> Tensor:
    """Take the root of a variance that rounding made negative."""
    return right(x) * torch.sqrt(x.var(-1, keepdim=True) * 0 - 1e-6)


def _fault(name: str, where: str, change: Callable[[Tensor], Tensor], **more: Any) -> Fault:
    return Fault(name, "not finite in " + where.split(".")[0], where, output(where, change), **more)


def _log_of_zero(path: str) -> Apply:
    return around(path, "forward", lambda right, *args, **kwargs: right(*args, **kwargs) * torch.tensor(-1.0).log())


FAULTS = (
    _fault("nan_in_backbone", "backbone.layer3.1.conv2", _spoiled(_NAN)),
    _fault("infinity_in_backbone", "backbone.layer2.0.bn2", _spoiled(_INF)),
    _fault("nan_in_backbone_of_one_image", "backbone.layer4.0.conv1", _spoiled(_NAN, image=1)),
    _fault("nan_in_neck", "neck.convs.1.gn", _zero_by_zero),
    _fault("one_nan_in_neck", "neck.extra_convs.0.conv", _one_number),
    _fault("nan_in_encoder_norm", "encoder.layers.0.norms.1", _spoiled(_NAN)),
    Fault("nan_by_root_in_encoder", "not finite in encoder", "encoder.layers.1.norms.0",
          around("encoder.layers.1.norms.0", "forward", _spoiled_norm)),
    _fault("nan_in_encoder_attention_of_one_image", "encoder.layers.0.self_attn.attention_weights",
           _spoiled(_NAN, image=1)),
    _fault("infinity_in_encoder", "encoder.layers.1.ffn.layers.0.0", _spoiled(_INF)),
    _fault("nan_in_decoder_attention", "decoder.layers.1.cross_attn.value_proj", _spoiled(_NAN)),
    _fault("nan_in_decoder_of_one_image", "decoder.layers.0.ffn.layers.1", _spoiled(_NAN, image=0)),
    _fault("one_nan_in_decoder", "decoder.layers.2.norms.1", _one_number),
    _fault("nan_in_decoder_in_training", "decoder.layers.0.norms.2", _in_training(_spoiled(_NAN))),
    Fault("nan_in_box_loss", "not finite in losses", "bbox_head.loss_iou", _log_of_zero("bbox_head.loss_iou")),
    Fault("nan_in_class_loss", "not finite in losses", "bbox_head.loss_cls",
          around("bbox_head.loss_cls", "forward", lambda right, *args, **kwargs: right(*args, **kwargs) * _NAN)),
    _fault("nan_in_label_embedding", "dn_query_generator.label_embedding", _spoiled(_NAN)),
    _fault("nan_in_class_logits", "bbox_head.cls_branches.3", _spoiled(_NAN, image=1)),
    _fault("infinity_in_box_branch", "bbox_head.reg_branches.0.4", _spoiled(_INF)),
)  # fmt: skip
