"""Encoder of the fast numerics, and what it is given: tokens, their positions and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.structures import SampleList
from mmengine.model import ModuleList
from torch import Tensor

from ddq_port.ops.sampling import Centres

from ..aux_loss import to_float32
from ..encoder import DDQTransformerEncoder
from .layers import FastEncoderLayer, RecomputedFastEncoderLayer


@dataclass(frozen=True)
class Tokens:
    """Feature maps of all levels as one sequence.

    Attributes:
        features: [bs, num_tokens, dim].
        positions: [bs or 1, num_tokens, dim], with the embedding of the level.
        padding: [bs, num_tokens] bool, True where padded, or None without padding.
        shapes: (h, w) of each level.
        valid_ratios: [bs, num_levels, 2] (w, h), the share of each level that is not padding, in (0, 1].
    """

    features: Tensor
    positions: Tensor
    padding: Tensor | None
    shapes: tuple[tuple[int, int], ...]
    valid_ratios: Tensor

    @property
    def sizes(self) -> list[int]:
        """Tokens of each level."""
        return [height * width for height, width in self.shapes]


def tokens_of(
    features: Sequence[Tensor], samples: SampleList, encoding: SinePositionalEncoding, level_embed: Tensor
) -> Tokens:
    """Flatten the feature maps.

    Args:
        features: of each level [bs, dim, h, w].
        samples: need ``batch_input_shape`` and ``img_shape`` (h, w).
        encoding: of positions.
        level_embed: [num_levels, dim].
    """
    whole = tuple(samples[0].batch_input_shape)
    if all(tuple(sample.img_shape[:2]) == whole for sample in samples):
        return unpadded_tokens(features, encoding, level_embed)
    masks = _masks(samples, whole, features)
    encoded = [encoding(mask).flatten(2).transpose(1, 2) for mask in masks]  # [bs, h * w, dim]
    padding = torch.cat([mask.flatten(1) for mask in masks], 1)  # [bs, num_tokens]
    ratios = torch.stack([DeformableDETR.get_valid_ratio(mask) for mask in masks], 1)  # [bs, num_levels, 2]
    return _flattened(features, encoded, level_embed, padding, ratios)


def unpadded_tokens(features: Sequence[Tensor], encoding: SinePositionalEncoding, level_embed: Tensor) -> Tokens:
    """Flatten the feature maps of images without padding; arguments as of :func:`tokens_of`."""
    encoded = [_unpadded_encoding(encoding, (x.shape[2], x.shape[3]), x.device) for x in features]
    ratios = torch.ones(len(features[0]), len(features), 2, device=features[0].device)
    return _flattened(features, encoded, level_embed, None, ratios)


def _flattened(
    features: Sequence[Tensor], encoded: Sequence[Tensor], level_embed: Tensor, padding: Tensor | None, ratios: Tensor
) -> Tokens:
    flat = torch.cat([x.flatten(2).transpose(1, 2) for x in features], 1)  # [bs, num_tokens, dim]
    # [bs or 1, num_tokens, dim]
    positions = torch.cat([part + embed for part, embed in zip(encoded, level_embed)], 1)
    shapes = tuple((x.shape[2], x.shape[3]) for x in features)
    return Tokens(flat, positions, padding, shapes, to_float32(ratios))


def _masks(samples: SampleList, whole: tuple[int, int], features: Sequence[Tensor]) -> list[Tensor]:
    """Return masks of padding, [bs, h, w] bool for each level, as mmdet's ``DeformableDETR`` makes them."""
    masks = features[0].new_ones(len(samples), *whole)
    for mask, sample in zip(masks, samples):
        height, width = sample.img_shape[:2]
        mask[:height, :width] = 0
    return [F.interpolate(masks[None], size=x.shape[-2:])[0].to(torch.bool) for x in features]


def _unpadded_encoding(encoding: SinePositionalEncoding, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Return the encoding of a level without padding, [1, h * w, dim], from those of one row and one column."""
    height, width = shape
    row = encoding(None, input=torch.empty(1, 0, 1, width, device=device))[:, encoding.num_feats :]
    column = encoding(None, input=torch.empty(1, 0, height, 1, device=device))[:, : encoding.num_feats]
    # two of [1, dim / 2, h, w], those of y first, then [1, dim, h, w]
    both = torch.cat([column.expand(-1, -1, -1, width), row.expand(-1, -1, height, -1)], 1)
    return both.flatten(2).transpose(1, 2)  # [1, h * w, dim]


def token_places(shape: tuple[int, int], ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y of a level's tokens as shares of the unpadded level, both [bs, h * w].

    Args:
        shape: (h, w) of the level.
        ratios: its valid ratios, [bs, 2] (w, h).
    """
    height, width = shape
    y = (torch.arange(height, device=ratios.device, dtype=ratios.dtype) + 0.5)[None] / (ratios[:, 1:] * height)
    x = (torch.arange(width, device=ratios.device, dtype=ratios.dtype) + 0.5)[None] / (ratios[:, :1] * width)
    # [bs, h, w] -> [bs, h * w] each
    y = y[:, :, None].expand(-1, -1, width).flatten(1)
    return x[:, None].expand(-1, height, -1).flatten(1), y  # [bs, h * w] each


def pixel_centres(x: Tensor, y: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return where places x and y, shares of the unpadded image [bs, n], lie on each level: [bs, n, num_levels]."""
    widths, heights = _pixels(tokens)
    return x[..., None] * widths[:, None] - 0.5, y[..., None] * heights[:, None] - 0.5


def _pixels(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return width and height in pixels of each level without padding, both [bs, num_levels]."""
    ratios, shapes = tokens.valid_ratios, tokens.shapes
    # made where they are needed: copying them to a GPU would wait for it
    widths = torch.stack([ratios[:, level, 0] * w for level, (_, w) in enumerate(shapes)], 1)  # [bs, num_levels]
    heights = torch.stack([ratios[:, level, 1] * h for level, (h, _) in enumerate(shapes)], 1)  # [bs, num_levels]
    return widths, heights


def box_centres(boxes: Tensor, tokens: Tokens, num_points: int) -> Centres:
    """Return the sample centres of boxes: offsets are halves of a box, divided by the number of points.

    Args:
        boxes: [bs, n, 4] cxcywh in [0, 1].
        tokens: whose levels are sampled.
        num_points: of each level.
    """
    widths, heights = _pixels(tokens)
    cx, cy, w, h = boxes.unbind(-1)
    scale = 0.5 / num_points
    x, y = pixel_centres(cx, cy, tokens)
    # each [bs, n, num_levels]
    return Centres(x, y, (w * scale)[..., None] * widths[:, None], (h * scale)[..., None] * heights[:, None])


class FastEncoder(DDQTransformerEncoder):
    """The encoder with fast layers; its arguments and parameters are the same."""

    def _init_layers(self) -> None:
        kinds = [RecomputedFastEncoderLayer if i < self.num_cp else FastEncoderLayer for i in range(self.num_layers)]
        self.layers = ModuleList([kind(**self.layer_cfg) for kind in kinds])
        self.embed_dims = self.layers[0].embed_dims

    def forward(self, query: Tensor, query_pos: Tensor, key_padding_mask: Tensor | None, tokens: Tokens) -> Tensor:
        """Return the memory, [bs, num_tokens, dim].

        Args:
            query: features of the tokens, [bs, num_tokens, dim].
            query_pos: their positions, [bs or 1, num_tokens, dim].
            key_padding_mask: [bs, num_tokens] bool, True where padded, or None.
            tokens: shapes and valid ratios.
        """
        # of each level [bs, h * w], together [bs, num_tokens]
        per_level = [token_places(shape, tokens.valid_ratios[:, i]) for i, shape in enumerate(tokens.shapes)]
        x, y = (torch.cat(parts, 1) for parts in zip(*per_level))  # [bs, num_tokens] each
        centres = Centres(*pixel_centres(x, y, tokens))
        for layer in self.layers:
            query = layer(query, query_pos, key_padding_mask, tokens.shapes, centres)
        return query
