"""The pyramid shuffle: levels exchange some of their channels before a convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def shuffled(maps: Sequence[Tensor], channels: int) -> list[Tensor]:
    """Give every level channels of the levels above and below it, resized, in place of its own last ones.

    A level keeps its first ``c - 2 * channels`` channels. Then come the last ``channels`` of the coarser level, then
    the ``channels`` before those of the finer level. The coarsest level is its own coarser one, and the finest its own
    finer one.

    Args:
        maps: per level [bs, c, h, w], the finest first.
        channels: number of channels that a level gets from each of the others.

    Returns:
        As ``maps``.
    """
    own = maps[0].size(1) - 2 * channels
    last = len(maps) - 1
    return [
        torch.cat(  # [bs, own + channels + channels, h, w]
            [
                level[:, :own],
                _resized(maps[min(number + 1, last)][:, own + channels :], level),
                _resized(maps[max(number - 1, 0)][:, own : own + channels], level),
            ],
            dim=1,
        )
        for number, level in enumerate(maps)
    ]


def _resized(part: Tensor, like: Tensor) -> Tensor:
    """Return [bs, channels, h, w] of the height and width of ``like``, corners on corners."""
    return functional.interpolate(part, size=like.shape[-2:], mode="bilinear", align_corners=True)
