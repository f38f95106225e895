"""Faults in the weights that the new side is given: what a converter may get wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fault import WEIGHTS, Fault

State = dict[str, Tensor]
_HEADS, _LEVELS, _POINTS = 8, 4, 4


def _changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[name] = change(state[name]).clone(memory_format=torch.contiguous_format)

    return apply


def _exchanged(one: str, two: str) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state[one], state[two] = state[two], state[one]

    return apply


def _fault(name: str, kind: str, key: str, change: Callable[[Tensor], Tensor]) -> Fault:
    return Fault(name, kind, key, _changed(key, change), place=WEIGHTS)


def _transposed(name: str, key: str) -> Fault:
    return _fault(name, "transposed square weight", key, lambda weight: weight.t())


def _value_heads_reversed(weight: Tensor) -> Tensor:
    query, key, value = weight.chunk(3)
    return torch.cat([query, key, value.view(_HEADS, -1, value.size(1)).flip(0).flatten(0, 1)])


def _key_query_value(weight: Tensor) -> Tensor:
    query, key, value = weight.chunk(3)
    return torch.cat([key, query, value])


def _y_before_x(weight: Tensor) -> Tensor:
    return weight.view(-1, 2, weight.size(-1)).flip(1).flatten(0, 1)


def _points_before_levels(weight: Tensor) -> Tensor:
    return weight.view(_HEADS, _LEVELS, _POINTS, -1).transpose(1, 2).flatten(0, 2)


FAULTS = (
    _transposed("memory_projection_transposed", "memory_trans_fc.weight"),
    _transposed("query_map_transposed", "query_map.weight"),
    _transposed("value_projection_transposed", "encoder.layers.1.self_attn.value_proj.weight"),
    _transposed("output_projection_transposed", "decoder.layers.2.self_attn.attn.out_proj.weight"),
    _fault("value_heads_reversed", "permuted heads", "decoder.layers.1.self_attn.attn.in_proj_weight",
           _value_heads_reversed),
    Fault("norms_exchanged", "swapped norms", "encoder.layers.0.norms.0.weight",
          _exchanged("encoder.layers.0.norms.0.weight", "encoder.layers.0.norms.1.weight"), place=WEIGHTS),
    Fault("layers_exchanged", "swapped layers", "encoder.layers.0.self_attn.output_proj.weight",
          _exchanged("encoder.layers.0.self_attn.output_proj.weight", "encoder.layers.1.self_attn.output_proj.weight"),
          place=WEIGHTS),
    _fault("key_query_value", "weight layout", "decoder.layers.0.self_attn.attn.in_proj_weight", _key_query_value),
    _fault("offsets_y_before_x", "weight layout", "encoder.layers.0.self_attn.sampling_offsets.weight", _y_before_x),
    _fault("points_before_levels", "weight layout", "decoder.layers.0.cross_attn.attention_weights.weight",
           _points_before_levels),
    _fault("box_size_before_centre", "weight layout", "bbox_head.reg_branches.2.4.weight",
           lambda weight: weight.roll(2, 0)),
    _fault("classes_from_one", "label offset", "bbox_head.cls_branches.1.weight", lambda weight: weight.roll(1, 0)),
    _fault("labels_embedded_from_one", "permuted channels", "dn_query_generator.label_embedding.weight",
           lambda weight: weight.roll(1, 0)),
    _fault("kernel_flipped", "flipped kernel", "backbone.conv1.weight", lambda weight: weight.flip(2, 3)),
    _fault("kernel_transposed", "flipped kernel", "backbone.layer1.0.conv2.weight",
           lambda weight: weight.transpose(2, 3)),
    _fault("kernel_for_bgr", "channel order", "backbone.conv1.weight", lambda weight: weight.flip(1)),
    _fault("levels_embedded_backwards", "level embedding", "level_embed", lambda weight: weight.flip(0)),
    _fault("class_bias_of_initialisation", "not loaded", "bbox_head.cls_branches.0.bias",
           lambda bias: torch.full_like(bias, -4.59512)),
    _fault("bias_dropped", "not loaded", "bbox_head.reg_branches.1.4.bias", torch.zeros_like),
    _fault("stored_in_half_precision", "rounded weight", "decoder.ref_point_head.layers.0.weight",
           lambda weight: weight.half().float()),
    _fault("last_bit_of_one_weight", "rounded weight", "neck.convs.2.conv.weight",
           lambda weight: torch.where(torch.arange(weight.numel()).view_as(weight) == 99,
                                      weight.nextafter(torch.tensor(9.0)), weight)),
    _fault("weight_negative", "sign", "query_map.bias", torch.neg),
)  # fmt: skip
