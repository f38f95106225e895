"""Faults in code that calls a module and changes the gradient of what it gave: forward is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddq_port.models.ddq_detr.decoder import DecoderOutput

from .fault import DETECTOR, Fault
from .planting import around, result, shadowing

Change = Callable[[Tensor], Tensor]


def _hooked(x: Tensor, change: Change) -> Tensor:
    if x.requires_grad:
        x.register_hook(change)
    return x


def _clamped(gradient: Tensor) -> Tensor:
    return gradient.clamp(-1e-4, 1e-4)


def _memory(change: Change) -> Callable[[dict], dict]:
    return lambda outputs: {**outputs, "memory": _hooked(outputs["memory"], change)}


def _features(change: Change) -> Callable[[tuple], tuple]:
    return lambda levels: tuple(_hooked(level, change) for level in levels)


def _backbone_gradient(right: Callable, images: Tensor) -> Any:
    """Halve the gradient between neck and backbone, in the detector's code."""
    model = right.__self__
    return model.neck([_hooked(level, lambda g: g * 0.5) for level in model.backbone(images)])


def _head_states(inputs: dict) -> dict:
    return {**inputs, "hidden_states": _hooked(inputs["hidden_states"], lambda g: g * 0.9)}


class _Hooked:
    """Calls a module and puts a hook on what it gives."""

    def __init__(self, module: Any, change: Change) -> None:
        self.module, self.change = module, change

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return _hooked(self.module(*args, **kwargs), self.change)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _first_layer_hooked(decoder: Any) -> list:
    layers = list(decoder._modules["layers"])
    return [_Hooked(layers[0], lambda g: g * 2.0), *layers[1:]]


def _norm_hooked(layer: Any) -> list:
    norms = list(layer._modules["norms"])
    return [norms[0], _Hooked(norms[1], _clamped)]


def _reference_gradient(out: DecoderOutput) -> DecoderOutput:
    return out._replace(references=_hooked(out.references, lambda g: torch.zeros_like(g)))


def _loss_gradient(terms: tuple) -> tuple:
    loss_cls, loss_bbox, loss_iou = terms
    return loss_cls, _hooked(loss_bbox, lambda g: g * 2), loss_iou


FAULTS = (
    Fault("gradient_of_memory_scaled_by_caller", "gradient changed by the caller", DETECTOR,
          result("", "forward_encoder", _memory(lambda g: g * 0.5))),
    Fault("gradient_of_backbone_scaled_by_caller", "gradient changed by the caller", DETECTOR,
          around("", "extract_feat", _backbone_gradient)),
    Fault("gradient_of_neck_clamped_by_caller", "gradient changed by the caller", DETECTOR,
          result("", "extract_feat", _features(_clamped))),
    Fault("gradient_of_states_scaled_by_caller", "gradient changed by the caller", DETECTOR,
          result("", "forward_transformer", _head_states)),
    Fault("gradient_of_layer_scaled_by_decoder", "gradient changed by the calling module", "decoder",
          shadowing("decoder", "layers", _first_layer_hooked)),
    Fault("gradient_of_norm_clamped_by_layer", "gradient changed by the calling module", "encoder.layers.1",
          shadowing("encoder.layers.1", "norms", _norm_hooked)),
    Fault("gradient_of_box_loss_doubled_by_head", "gradient changed by the calling module", "bbox_head",
          result("bbox_head", "_matching_loss", _loss_gradient)),
)  # fmt: skip
