"""Feature maps as one sequence of tokens, and where these lie in the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """All levels of a batch, one behind the other.

    Attributes:
        features: [bs, num_tokens, dim].
        padding: [bs, num_tokens] bool, True outside of the image.
        shapes: [num_levels, 2] (h, w) of each level.
        starts: [num_levels], the first token of each level.
        valid_ratios: [bs, num_levels, 2], the part (of width, of height) in (0, 1] that is inside of the image.
    """

    features: Tensor
    padding: Tensor
    shapes: Tensor
    starts: Tensor
    valid_ratios: Tensor


def flattened(features: Sequence[Tensor], masks: Sequence[Tensor]) -> Tokens:
    """Return the levels as tokens.

    Args:
        features: per level [bs, dim, h, w].
        masks: per level [bs, h, w] bool, True outside of the image.
    """
    # per level [bs, dim, h, w] -> [bs, h * w, dim]; together [bs, num_tokens, dim]
    rows = torch.cat([level.flatten(2).transpose(1, 2) for level in features], 1)
    padding = torch.cat([mask.flatten(1) for mask in masks], 1)  # [bs, num_tokens]
    shapes = torch.as_tensor([level.shape[-2:] for level in features], dtype=torch.long, device=rows.device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])  # [num_levels]
    return Tokens(rows, padding, shapes, starts, torch.stack([_valid_ratio(mask) for mask in masks], 1))


def encodings(positions: Sequence[Tensor], level_embeds: Tensor) -> Tensor:
    """Return the encoding of each token's place and level, [bs, num_tokens, dim].

    Args:
        positions: per level [bs, dim, h, w].
        level_embeds: [num_levels, dim].
    """
    return torch.cat(  # per level [bs, dim, h, w] -> [bs, h * w, dim]
        [level.flatten(2).transpose(1, 2) + embed.view(1, 1, -1) for level, embed in zip(positions, level_embeds)], 1
    )


def maps(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return tokens [num_tokens, bs, dim] as maps of the levels, each [bs, dim, h, w] as those of ``like``."""
    levels, start = [], 0
    for level in like:
        end = start + level.shape[-2] * level.shape[-1]
        levels.append(rows[start:end].permute(1, 2, 0).contiguous().reshape(level.shape))  # [h * w, bs, dim] -> map
        start = end
    return levels


def reference_points(tokens: Tokens) -> Tensor:
    """Return the centre of each token for each level, [bs, num_tokens, num_levels, 2] (x, y) in parts of that level."""
    centres = []
    for level, (h, w, ys, xs) in enumerate(_grids(tokens.shapes, 0.5)):
        ys = ys.reshape(-1)[None] / (tokens.valid_ratios[:, None, level, 1] * h)  # [bs, h * w]
        xs = xs.reshape(-1)[None] / (tokens.valid_ratios[:, None, level, 0] * w)
        centres.append(torch.stack((xs, ys), -1))  # [bs, h * w, 2]
    # [bs, num_tokens, 1, 2] * [bs, 1, num_levels, 2]
    return torch.cat(centres, 1)[:, :, None] * tokens.valid_ratios[:, None]


def proposals(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return a box for each token, and which tokens may make one.

    Returns:
        [bs, num_tokens, 4] cxcywh before the sigmoid, infinite where there is none; [bs, num_tokens, 1] bool, False for
        tokens that are padding and those whose box would touch the border.
    """
    boxes, bs = [], len(tokens.padding)
    for level, (h, w, ys, xs) in enumerate(_grids(tokens.shapes, 0.0)):
        start = int(tokens.starts[level])
        inside = ~tokens.padding[:, start : start + h * w].view(bs, h, w)  # [bs, h * w] -> [bs, h, w]
        # (w, h) in tokens, [bs, 1, 1, 2]
        extent = torch.stack([inside[:, 0].sum(1), inside[:, :, 0].sum(1)], 1).view(bs, 1, 1, 2)
        centres = (torch.stack([xs, ys], -1)[None].expand(bs, -1, -1, -1) + 0.5) / extent  # [bs, h, w, 2]
        sides = torch.ones_like(centres) * 0.05 * (2.0**level)
        boxes.append(torch.cat((centres, sides), -1).view(bs, -1, 4))  # [bs, h * w, 4]
    found = torch.cat(boxes, 1)
    usable = ((found > 0.01) & (found < 0.99)).all(-1, keepdim=True)
    outside = tokens.padding.unsqueeze(-1)
    logits = torch.log(found / (1 - found)).masked_fill(outside, float("inf")).masked_fill(~usable, float("inf"))
    return logits, usable & ~outside


def box_encoding(boxes: Tensor, dim: int) -> Tensor:
    """Return sines and cosines of boxes [bs, n, 4] cxcywh before the sigmoid, [bs, n, 4 * dim]."""
    index = torch.arange(dim, dtype=torch.float32, device=boxes.device)
    wavelengths = 10000 ** (2 * (index // 2) / dim)
    angles = (boxes.sigmoid() * (2 * math.pi))[:, :, :, None] / wavelengths  # [bs, n, 4, dim]
    # sine and cosine of each pair of places lie side by side: [bs, n, 4, dim / 2, 2] -> [bs, n, 4 * dim]
    return torch.stack((angles[:, :, :, 0::2].sin(), angles[:, :, :, 1::2].cos()), dim=4).flatten(2)


def _grids(shapes: Tensor, first: float) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Yield h, w and the places ys and xs [h, w] of each level's tokens, one apart, from ``first`` on."""
    for h, w in shapes.tolist():
        ys = torch.linspace(first, h - 1 + first, h, dtype=torch.float32, device=shapes.device)
        xs = torch.linspace(first, w - 1 + first, w, dtype=torch.float32, device=shapes.device)
        yield h, w, *torch.meshgrid(ys, xs, indexing="ij")


def _valid_ratio(mask: Tensor) -> Tensor:
    """Return the parts (of width, of height) [bs, 2] of a mask [bs, h, w] that are inside of the image."""
    h, w = mask.shape[-2:]
    heights, widths = torch.sum(~mask[:, :, 0], 1), torch.sum(~mask[:, 0, :], 1)
    return torch.stack([widths.float() / w, heights.float() / h], -1)  # [bs, 2]
