"""Faults in encoder layers, decoder layers and their attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import multi_scale_deform_attn
from torch import Tensor, nn

from .fault import Fault
from .planting import Apply, around, calling, output, replaced, replacing, setting, shadowing

_HEADS = 8


def _sampling(path: str, change: Callable[..., Tensor]) -> Apply:
    """Put ``change(right, value, shapes, locations, weights, references)`` in place of the sampling of one module.

    ``value`` is [bs, tokens, heads, dim], ``locations`` [bs, queries, heads, levels, points, 2], ``weights`` the same
    without the last axis, ``references`` [bs, queries, levels, 2 or 4].
    """
    name = "multi_scale_deformable_attn_pytorch"
    right = getattr(multi_scale_deform_attn, name)

    def forward(forward: Callable, *args: Any, **kwargs: Any) -> Tensor:
        def changed(*arguments: Tensor) -> Tensor:
            return change(right, *arguments, kwargs["reference_points"])

        with replaced(multi_scale_deform_attn, name, changed):
            return forward(*args, **kwargs)

    return around(path, "forward", forward)


def _located(path: str, change: Callable[[Tensor, Tensor], Tensor]) -> Apply:
    """Change the offsets [bs, queries, heads, levels, points, 2] from the reference points; gets the level shapes."""

    def changed(right: Callable, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor,
                references: Tensor) -> Tensor:  # fmt: skip
        centres = references[:, :, None, :, None, :2]
        return right(value, shapes, centres + change(locations - centres, shapes), weights)

    return _sampling(path, changed)


def _normalised_by_height_first(offsets: Tensor, shapes: Tensor) -> Tensor:
    return offsets * (shapes.flip(-1) / shapes)[:, None]


def _with_grid_sample(path: str, **changes: Any) -> Apply:
    def sample(right: Callable, *args: Any, **kwargs: Any) -> Tensor:
        return right(*args, **{**kwargs, **changes})

    def changed(right: Callable, *arguments: Tensor) -> Tensor:
        with replaced(F, "grid_sample", calling(F.grid_sample, sample)):
            return right(*arguments[:-1])

    return _sampling(path, changed)


def _heads_rolled(right: Callable, *arguments: Tensor) -> Tensor:
    out = right(*arguments[:-1])  # [bs, queries, heads * dim]
    return out.roll(out.size(-1) // _HEADS, -1)


def _points_and_heads_mixed_up(right: Callable, value: Tensor, *arguments: Tensor) -> Tensor:
    mixed = value.transpose(2, 3).reshape(value.shape)
    return right(mixed, *arguments[:-1])


def _softmax_over_points(right: Callable, *arguments: Tensor) -> Tensor:
    value, shapes, locations, weights, _ = arguments
    return right(value, shapes, locations, weights / weights.sum(-1, keepdim=True))


def _levels_weighted_backwards(right: Callable, *arguments: Tensor) -> Tensor:
    value, shapes, locations, weights, _ = arguments
    return right(value, shapes, locations, weights.flip(3))


def _attention(path: str, change: Callable[[dict[str, Tensor]], None]) -> Apply:
    """Change the weights with which one ``nn.MultiheadAttention`` computes, not those it holds."""
    places = {"in_proj_weight": 5, "in_proj_bias": 6, "out_proj_weight": 11}  # among its arguments

    def attend(right: Callable, *args: Any, **kwargs: Any) -> Any:
        weights = {name: args[place] for name, place in places.items()}
        change(weights)
        positional = list(args)
        for name, place in places.items():
            positional[place] = weights[name]
        return right(*positional, **kwargs)

    def forward(right: Callable, *args: Any, **kwargs: Any) -> Any:
        with replaced(F, "multi_head_attention_forward", calling(F.multi_head_attention_forward, attend)):
            return right(*args, **kwargs)

    return around(path, "forward", forward)


def _heads_reversed(weights: dict[str, Tensor]) -> None:
    projection = weights["out_proj_weight"]
    heads = projection.view(len(projection), _HEADS, -1)
    weights["out_proj_weight"] = heads.flip(1).reshape(projection.shape)


def _queries_scaled(weights: dict[str, Tensor]) -> None:
    dim = len(weights["out_proj_weight"])
    scale = (dim // _HEADS) ** 0.5
    for name in ("in_proj_weight", "in_proj_bias"):
        weights[name] = torch.cat([weights[name][:dim] * scale, weights[name][dim:]])


def _without_identity(right: Callable, query: Tensor, **kwargs: Any) -> Tensor:
    return right(query, **kwargs, identity=torch.zeros_like(query))


def _position_on_value(right: Callable, **kwargs: Any) -> Tensor:
    return right(**{**kwargs, "value": kwargs["value"] + kwargs["query_pos"], "identity": kwargs["query"]})


def _no_position_on_key(right: Callable, **kwargs: Any) -> Tensor:
    return right(**{**kwargs, "key_pos": torch.zeros_like(kwargs["query_pos"])})


def _unmasked(right: Callable, **kwargs: Any) -> Tensor:
    return right(**{**kwargs, "key_padding_mask": None})


def _negative_position(right: Callable, *args: Any, **kwargs: Any) -> Tensor:
    return right(*args, **{**kwargs, "query_pos": -kwargs["query_pos"]})


def _reference_points(change: Callable[[Callable, Tensor, Tensor, Any], Tensor]) -> Apply:
    return around("encoder", "get_encoder_reference_points", change)


def _half_a_cell_off(right: Callable, shapes: Tensor, ratios: Tensor, device: Any) -> Tensor:
    cells = [torch.stack([0.5 / shape[1], 0.5 / shape[0]]) for shape in shapes]
    points = right(shapes, ratios, device)
    return points - torch.stack(cells).to(points)


def _norms(order: tuple[int, ...]) -> Callable[[nn.Module], list[nn.Module]]:
    return lambda layer: [layer._modules["norms"][i] for i in order]


def _with_gelu(right: Callable, x: Tensor) -> Tensor:
    with replaced(F, "relu", F.gelu):
        return right(x)


def _bfloat(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


FAULTS = (
    Fault("swapped_norms_encoder", "swapped norms", "encoder.layers.0",
          shadowing("encoder.layers.0", "norms", _norms((1, 0)))),
    Fault("swapped_norms_decoder", "swapped norms", "decoder.layers.1",
          shadowing("decoder.layers.1", "norms", _norms((2, 1, 0)))),
    Fault("encoder_without_its_last_layer", "off-by-one layer", "encoder",
          shadowing("encoder", "layers", lambda encoder: list(encoder._modules["layers"])[:-1])),
    Fault("heads_rolled_in_encoder", "permuted heads", "encoder.layers.0.self_attn",
          _sampling("encoder.layers.0.self_attn", _heads_rolled)),
    Fault("heads_rolled_in_cross_attention", "permuted heads", "decoder.layers.1.cross_attn",
          _sampling("decoder.layers.1.cross_attn", _heads_rolled)),
    Fault("heads_reversed_in_self_attention", "permuted heads", "decoder.layers.0.self_attn.attn",
          _attention("decoder.layers.0.self_attn.attn", _heads_reversed)),
    Fault("heads_and_channels_mixed_up", "value layout", "encoder.layers.1.self_attn",
          _sampling("encoder.layers.1.self_attn", _points_and_heads_mixed_up)),
    Fault("offsets_normalised_by_height_first", "sampling offset scale", "encoder.layers.0.self_attn",
          _located("encoder.layers.0.self_attn", _normalised_by_height_first)),
    Fault("offsets_twice_as_far", "sampling offset scale", "decoder.layers.0.cross_attn",
          _located("decoder.layers.0.cross_attn", lambda offsets, shapes: 2 * offsets)),
    Fault("offsets_not_divided_by_points", "sampling offset scale", "decoder.layers.2.cross_attn",
          _located("decoder.layers.2.cross_attn", lambda offsets, shapes: 4 * offsets)),
    Fault("offsets_negative", "sign", "encoder.layers.1.self_attn",
          _located("encoder.layers.1.self_attn", lambda offsets, shapes: -offsets)),
    Fault("corners_aligned", "interpolation", "encoder.layers.0.self_attn",
          _with_grid_sample("encoder.layers.0.self_attn", align_corners=True)),
    Fault("nearest_sampling", "interpolation", "decoder.layers.1.cross_attn",
          _with_grid_sample("decoder.layers.1.cross_attn", mode="nearest")),
    Fault("border_padding", "padding value", "encoder.layers.0.self_attn",
          _with_grid_sample("encoder.layers.0.self_attn", padding_mode="border")),
    Fault("softmax_over_points", "softmax axis", "decoder.layers.0.cross_attn",
          _sampling("decoder.layers.0.cross_attn", _softmax_over_points)),
    Fault("levels_weighted_backwards", "level order", "encoder.layers.0.self_attn",
          _sampling("encoder.layers.0.self_attn", _levels_weighted_backwards)),
    Fault("padding_is_seen_in_encoder", "padding mask", "encoder.layers.0.self_attn",
          around("encoder.layers.0.self_attn", "forward", _unmasked)),
    Fault("attention_not_scaled", "attention scale", "decoder.layers.0.self_attn.attn",
          _attention("decoder.layers.0.self_attn.attn", _queries_scaled)),
    Fault("residual_cross_attention", "dropped residual", "decoder.layers.0.cross_attn",
          around("decoder.layers.0.cross_attn", "forward", _without_identity)),
    Fault("residual_self_attention", "dropped residual", "decoder.layers.2.self_attn",
          around("decoder.layers.2.self_attn", "forward", _without_identity)),
    Fault("residual_feed_forward", "dropped residual", "encoder.layers.1.ffn",
          setting("encoder.layers.1.ffn", add_identity=False)),
    Fault("position_on_value", "query position", "decoder.layers.0.self_attn",
          around("decoder.layers.0.self_attn", "forward", _position_on_value)),
    Fault("no_position_on_key", "query position", "decoder.layers.1.self_attn",
          around("decoder.layers.1.self_attn", "forward", _no_position_on_key)),
    Fault("position_negative", "sign", "decoder.layers.0",
          around("decoder.layers.0", "forward", _negative_position)),
    Fault("references_ignore_padding", "reference points", "encoder",
          _reference_points(lambda right, shapes, ratios, device: right(shapes, torch.ones_like(ratios), device))),
    Fault("references_half_a_cell_off", "reference points", "encoder", _reference_points(_half_a_cell_off)),
    Fault("activation_feed_forward", "activation", "encoder.layers.0.ffn.layers.0.1",
          replacing("encoder.layers.0.ffn.layers.0.1", nn.GELU)),
    Fault("activation_position", "activation", "decoder.ref_point_head",
          around("decoder.ref_point_head", "forward", _with_gelu)),
    Fault("dropout_feed_forward", "dropout", "decoder.layers.0.ffn.layers.0.2",
          setting("decoder.layers.0.ffn.layers.0.2", p=0.1)),
    Fault("dropout_attention", "dropout", "decoder.layers.1.self_attn.attn",
          setting("decoder.layers.1.self_attn.attn", dropout=0.1)),
    Fault("bfloat_value", "dtype cast", "encoder.layers.1.self_attn.value_proj",
          output("encoder.layers.1.self_attn.value_proj", _bfloat)),
    Fault("one_query_of_one_layer", "single element", "decoder.layers.1.ffn",
          output("decoder.layers.1.ffn", lambda x: x + 1e-4 * (torch.arange(x.size(1)) == 7)[:, None])),
)  # fmt: skip
