"""Multi-head attention computed again: scale, heads, masks, biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .kinds import Diagnosis, DiagnosisKind
from .layers import Layer, fitted, sides_of
from .scene import Scene

_RANK = 4
_MOST_PRODUCTS = 2e10


@dataclass(frozen=True)
class Way:
    """One way to compute attention.

    Attributes:
        heads: number of heads.
        batch_first: of the tensors.
        scale: of the products of queries and keys, by the length of a head.
        order: of the heads, before the last projection: takes them as axis 1.
        mask: use the mask of pairs.
        padding: use the mask of keys.
        bias: add the biases.
    """

    heads: int
    batch_first: bool
    scale: Callable[[int], float] = lambda length: length**-0.5
    order: Callable[[Tensor], Tensor] = lambda heads: heads
    mask: bool = True
    padding: bool = True
    bias: bool = True


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield what is otherwise in a ``nn.MultiheadAttention`` whose output differs."""
    if not {"query", "key", "value"} <= scene.inputs.keys() or scene.record.slot not in ("", "0"):
        return
    weights = scene.weights_of(scene.record.name)
    if not {"in_proj_weight", "out_proj.weight"} <= weights.keys():
        return
    found = sides_of(scene, "query")
    if found is None or found[0].x.dim() != 3:
        return
    layers = tuple(
        replace(layer, weights={name: (both.legacy, both.new)[side].double() for name, both in weights.items()})
        for side, layer in enumerate(found)
    )
    width = layers[1].x.shape[-1]
    if layers[1].x.numel() * max(layers[1].more["key"].shape[:2]) * 4 > _MOST_PRODUCTS:
        return
    for batch_first in (False, True):
        for heads in (number for number in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if width % number == 0):
            base = Way(heads, batch_first)
            if layers[0].off(attention(layers[0], base)) <= 2e-4:
                yield from _of(scene, layers, base)
                return


def _of(scene: Scene, layers: tuple[Layer, Layer], base: Way) -> Iterator[Diagnosis]:
    ways: dict[str, Way] = {f"attention of {base.heads} heads": base}
    for number in (1, 2, 4, 8, 16):
        if layers[1].x.shape[-1] % number == 0 and number != base.heads:
            ways[f"attention of {number} heads"] = replace(base, heads=number)
    ways["attention whose products are not scaled"] = replace(base, scale=lambda length: 1.0)
    ways["attention scaled by 1/length, not its root"] = replace(base, scale=lambda length: 1.0 / length)
    ways["attention with its heads in reverse order"] = replace(base, order=lambda heads: heads.flip(1))
    for by in range(1, base.heads) if base.heads > 2 else ():  # of two that is the reverse order
        ways[f"attention with its heads rolled by {by}"] = replace(base, order=lambda heads, by=by: heads.roll(by, 1))
    if layers[1].more.get("attn_mask") is not None:
        ways["attention without its mask"] = replace(base, mask=False)
    if layers[1].more.get("key_padding_mask") is not None:
        ways["attention that sees padded keys"] = replace(base, padding=False)
    if "in_proj_bias" in layers[1].weights:
        ways["attention without its biases"] = replace(base, bias=False)
    hypotheses = [(name, lambda layer, way=way: attention(layer, way)) for name, way in ways.items()]
    fit = fitted(layers, hypotheses, scene.gap, hypotheses[0][0])
    if fit is not None:
        text = f"{fit.new}, in place of {fit.legacy}" if fit.legacy else fit.new
        yield scene.diagnosis(DiagnosisKind.ATTENTION, text, fit.residual, _RANK)


def attention(layer: Layer, way: Way) -> Tensor | None:
    """Compute what ``nn.MultiheadAttention`` gives in evaluation; None if the shapes do not fit."""
    query, key, value = (layer.more[name] for name in ("query", "key", "value"))
    if not way.batch_first:
        query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))  # [bs, tokens, width]
    width = query.shape[-1]
    if width % way.heads or len(query) != len(key) or key.shape[:2] != value.shape[:2]:
        return None
    weight, bias = layer.weights["in_proj_weight"], layer.weights.get("in_proj_bias")
    projected = []
    for tensor, part in zip((query, key, value), range(3)):
        rows = slice(part * width, (part + 1) * width)
        one = tensor @ weight[rows].t()
        projected.append(one + bias[rows] if bias is not None and way.bias else one)
    # [bs, heads, tokens, length]
    q, k, v = (one.reshape(*one.shape[:2], way.heads, -1).transpose(1, 2) for one in projected)
    products = q @ k.transpose(-1, -2) * way.scale(q.shape[-1])
    mask, padding = layer.more.get("attn_mask"), layer.more.get("key_padding_mask")
    if mask is not None and mask.dim() == 3 and len(mask) != len(q) * way.heads:
        return None
    if mask is not None and way.mask:
        mask = mask if mask.dim() == 2 else mask.reshape(len(q), -1, *mask.shape[-2:])
        products = products.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else products + mask
    if padding is not None and way.padding and padding.dtype == torch.bool:
        products = products.masked_fill(padding[:, None, None], -math.inf)
    heads = way.order(products.softmax(-1) @ v)
    joined = heads.transpose(1, 2).reshape(*query.shape)  # [bs, tokens, width]
    out = joined @ layer.weights["out_proj.weight"].t()
    if "out_proj.bias" in layer.weights and way.bias:
        out = out + layer.weights["out_proj.bias"]
    return out if way.batch_first else out.transpose(0, 1)
