"""Harmless rewrites of single modules: another class, another parameter name, in place or not, recomputed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddq_port.models.ddq_detr.encoder import RecomputedEncoderLayer

from .fault import Rewrite
from .planting import Apply, at, setting, together


def of_class(path: str, kind: type[nn.Module]) -> Apply:
    """Make the module at ``path`` one of another class that computes the same."""

    def apply(model: nn.Module) -> None:
        at(model, path).__class__ = kind

    return apply


def subclass(path: str, **methods: Callable[..., Any]) -> Apply:
    """Make the module at ``path`` one of a subclass of its class, with other ``methods``."""

    def apply(model: nn.Module) -> None:
        module = at(model, path)
        module.__class__ = type("My" + type(module).__name__, (type(module),), methods)

    return apply


def _as_all(kind: type[nn.Module], change: Callable[[nn.Module], None]) -> Apply:
    """Change every module of exactly one class."""

    def apply(model: nn.Module) -> None:
        for module in model.modules():
            if type(module) is kind:
                change(module)

    return apply


def _becomes(kind: type[nn.Module]) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        module.__class__ = kind

    return change


class OtherLayerNorm(nn.LayerNorm):
    """A LayerNorm of another package: the same under another name."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise [..., dim]."""
        return super().forward(hidden_states)


class Projection(nn.Linear):
    """A Linear with a parameter of another name."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Project [..., in] to [..., out]."""
        return nn.functional.linear(hidden, self.weight, self.bias)


class FrozenNorm(nn.BatchNorm2d):
    """A BatchNorm2d that says what it is: never in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [bs, channels, h, w] with the running statistics."""
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def _identities_for_dropouts(model: nn.Module) -> None:
    """Leave out what drops nothing."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout) and child.p == 0:
                setattr(module, name, nn.Identity())


def _relu_in_place(value: bool) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        module.inplace = value

    return change


def _feed_forward(self: Any, hidden: Tensor, residual: Tensor | None = None) -> Tensor:
    out = self.gamma2(self.layers(hidden))
    return (hidden if residual is None else residual) + self.dropout_layer(out)


def _feed_forward_layer_by_layer(self: Any, x: Tensor, identity: Tensor | None = None) -> Tensor:
    out = x
    for layer in self.layers:
        out = layer(out)
    return (x if identity is None else identity) + self.dropout_layer(self.gamma2(out))


def _perceptron(self: Any, points: Tensor) -> Tensor:
    for layer in self.layers[:-1]:
        points = layer(points).relu()
    return self.layers[-1](points)


def _encoding_renamed(self: Any, padding: Tensor | None, features: Tensor | None = None) -> Tensor:
    return type(self).__mro__[1].forward(self, padding, features)


def _box_loss_renamed(self: Any, boxes: Tensor, goals: Tensor, weights: Tensor | None = None,
                      avg_factor: Any = None, reduction_override: Any = None) -> Tensor:  # fmt: skip
    return type(self).__mro__[1].forward(self, boxes, goals, weights, avg_factor, reduction_override)


def _recomputed(self: Any, *args: Any, **kwargs: Any) -> Tensor:
    forward = super(type(self), self).forward
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _recomputed_encoder(model: nn.Module) -> None:
    for layer in model.encoder.layers:
        layer.__class__ = RecomputedEncoderLayer


def _recomputed_blocks(model: nn.Module) -> None:
    for stage in (model.backbone.layer2, model.backbone.layer3, model.backbone.layer4):
        for block in stage:
            block.with_cp = True


def _recomputed_windows(model: nn.Module) -> None:
    for stage in model.backbone.stages:
        for block in stage.blocks:
            block.with_cp = True


def _max_pool(model: nn.Module) -> None:
    pool = model.backbone.maxpool
    model.backbone.maxpool = wrappers.MaxPool2d(pool.kernel_size, pool.stride, pool.padding)


REWRITES = (
    Rewrite("linear_of_mmcv", "wrapper class for a leaf", "query_map", of_class("query_map", wrappers.Linear)),
    Rewrite("linear_of_torch", "wrapper class for a leaf", "encoder.layers",
            _as_all(wrappers.Linear, _becomes(nn.Linear))),
    Rewrite("convolution_of_mmcv", "wrapper class for a leaf", "neck",
            of_class("neck.convs.1.conv", wrappers.Conv2d)),
    Rewrite("pool_of_mmcv", "wrapper class for a leaf", "backbone.maxpool", _max_pool),
    Rewrite("layer_norm_of_other_package", "subclass for a leaf", "encoder",
            of_class("encoder.layers.0.norms.1", OtherLayerNorm)),
    Rewrite("every_layer_norm_of_other_package", "subclass for a leaf", "the detector",
            _as_all(nn.LayerNorm, _becomes(OtherLayerNorm))),
    Rewrite("linear_with_other_parameter_name", "subclass for a leaf", "memory_trans_fc",
            of_class("memory_trans_fc", Projection)),
    Rewrite("frozen_batch_norm", "subclass for a leaf", "backbone", _as_all(nn.BatchNorm2d, _becomes(FrozenNorm))),
    Rewrite("identity_for_dropout", "equal leaf of another class", "the detector", _identities_for_dropouts),
    Rewrite("relu_out_of_place_in_backbone", "in place or not", "backbone.relu",
            setting("backbone.relu", inplace=False)),
    Rewrite("relu_out_of_place", "in place or not", "encoder", _as_all(nn.ReLU, _relu_in_place(False))),
    Rewrite("relu_in_place_in_branches", "in place or not", "bbox_head.reg_branches",
            together(*(setting(f"bbox_head.reg_branches.{i}.{j}", inplace=True) for i in range(4) for j in (1, 3)))),
    Rewrite("feed_forward_renamed", "other parameter names", "decoder.layers.0.ffn",
            subclass("decoder.layers.0.ffn", forward=_feed_forward)),
    Rewrite("encoding_renamed", "other parameter names", "positional_encoding",
            subclass("positional_encoding", forward=_encoding_renamed)),
    Rewrite("box_loss_renamed", "other parameter names", "bbox_head.loss_bbox",
            subclass("bbox_head.loss_bbox", forward=_box_loss_renamed)),
    Rewrite("feed_forward_layer_by_layer", "same calls, other code", "encoder.layers.1.ffn",
            subclass("encoder.layers.1.ffn", forward=_feed_forward_layer_by_layer)),
    Rewrite("perceptron_with_tensor_relu", "same calls, other code", "decoder.ref_point_head",
            subclass("decoder.ref_point_head", forward=_perceptron)),
    Rewrite("encoder_recomputed", "gradient checkpointing", "encoder", _recomputed_encoder),
    Rewrite("decoder_layer_recomputed", "gradient checkpointing", "decoder.layers.1",
            subclass("decoder.layers.1", forward=_recomputed)),
    # mmdet's switch: a block's gradients come in another order, so sums of them round otherwise
    Rewrite("backbone_recomputed", "gradient checkpointing", "backbone", _recomputed_blocks, keeps_bits=False),
    Rewrite("swin_recomputed", "gradient checkpointing", "backbone", _recomputed_windows, setting="swin"),
)  # fmt: skip
