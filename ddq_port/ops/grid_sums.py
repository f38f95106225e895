"""Sums of bilinear samples for heads of few channels on a CPU: ``grid_sample`` level by level, of a few images at a time.

What is sampled then fits in the cache, and is multiplied and summed while it is there. It is kept for the backward pass,
as is where it was sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Numbers that are sampled at a time: less than a MB.
_BLOCK = 200_000


class GridSum(torch.autograd.Function):
    """The sum that :func:`ddq_port.ops.sampling.sampled_sum` describes; there are no second derivatives.

    Its arguments are those of ``sampled_sum``: value [bs, num_tokens, num_heads * channels]; x, y and weights [bs,
    num_heads * num_levels * num_points, num_queries]; the four fields of the centres; the shapes; the heads. It returns
    [bs, num_queries, num_heads * channels].
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, x: Tensor, y: Tensor, weights: Tensor, where: tuple,
        shapes: tuple[tuple[int, int], ...], heads: int,
    ) -> Tensor:  # fmt: skip
        features = value.transpose(1, 2).contiguous()  # [bs, heads * channels, num_tokens]
        output = value.new_empty(len(value), x.shape[-1], value.shape[-1])
        scales, centres = _scales(where, shapes, x), _centres(where, shapes, x)
        grids, samples = [], []
        for images in _blocks(features, x, heads * len(shapes)):
            of_x, of_y, of_weights = (_by_level(t[images], heads, len(shapes)) for t in (x, y, weights))
            grid = x.new_empty(*of_x.shape, 2)  # [levels, images, heads, points, num_queries, 2]
            for axis, offsets in enumerate((of_x, of_y)):
                torch.addcmul(centres[axis][:, images], offsets, scales[axis][:, images], out=grid[..., axis])
            grids.append(grid.flatten(1, 2))  # [levels, images * heads, points, num_queries, 2]
            # [images * heads, channels, num_queries]
            total = value.new_zeros(len(grids[-1][0]), features.shape[1] // heads, x.shape[-1])
            for level, feature in enumerate(_levels(features[images], shapes, heads)):
                # [images * heads, channels, points, num_queries]
                sampled = F.grid_sample(feature, grids[-1][level], padding_mode="zeros", align_corners=False)
                samples.append(sampled)
                for of_point, weight in zip(sampled.unbind(2), of_weights[level].flatten(0, 1).unbind(1)):
                    total.addcmul_(of_point, weight[:, None])  # weight: [images * heads, num_queries]
            # [images * heads, channels, num_queries] -> [images, num_queries, heads * channels]
            output[images] = total.view(-1, features.shape[1], x.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(features, weights, *scales, *grids, *samples)
        ctx.shapes, ctx.heads = shapes, heads
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        features, weights, *rest = ctx.saved_tensors
        shapes, heads, levels = ctx.shapes, ctx.heads, len(ctx.shapes)
        blocks = _blocks(features, weights, heads * levels)
        scales, grids, samples = rest[:2], rest[2 : 2 + len(blocks)], iter(rest[2 + len(blocks) :])
        grad_features = torch.empty_like(features)
        grads = [torch.empty_like(weights) for _ in range(3)]  # of x, y and weights
        for images, grid in zip(blocks, grids):
            # [images, num_queries, heads * channels] -> [images * heads, channels, 1, num_queries]
            grad = grad_output[images].transpose(1, 2).contiguous().view(len(grid[0]), -1, 1, weights.shape[-1])
            of_weights, *into = (_by_level(t[images], heads, levels) for t in (weights, *grads))
            both = zip(_levels(features[images], shapes, heads), _levels(grad_features[images], shapes, heads))
            for level, (feature, of_feature) in enumerate(both):
                sampled = next(samples)  # [images * heads, channels, points, num_queries]
                product = sampled * grad
                # [images, heads, points, num_queries] -> [images * heads, points, num_queries], for both
                torch.sum(product, 1, out=into[2][level].flatten(0, 1))
                # [images * heads, 1, points, num_queries]
                torch.mul(grad, of_weights[level].flatten(0, 1)[:, None], out=product)
                # what autograd calls for grid_sample: bilinear, zeros outside, corners not aligned
                result, of_grid = torch.ops.aten.grid_sampler_2d_backward(
                    product, feature, grid[level], 0, 0, False, [True, True]
                )
                of_feature.copy_(result)
                of_grid = of_grid.view(*into[0][level].shape, 2)  # [images, heads, points, num_queries, 2]
                for axis in (0, 1):
                    torch.mul(of_grid[..., axis], scales[axis][level, images], out=into[axis][level])
        # [bs, heads * channels, num_tokens] -> [bs, num_tokens, heads * channels]
        return grad_features.transpose(1, 2), *grads, None, None, None


def _blocks(features: Tensor, samples: Tensor, groups: int) -> list[slice]:
    """Return which images are taken together."""
    of_image = features.shape[1] * samples.shape[1] // groups * samples.shape[2]  # numbers sampled of an image and a level
    size = max(1, _BLOCK // max(1, of_image))
    return [slice(start, start + size) for start in range(0, len(features), size)]


def _levels(features: Tensor, shapes: Sequence[tuple[int, int]], heads: int) -> Iterator[Tensor]:
    """Yield of each level its part of ``features`` [n, heads * channels, num_tokens], as [n * heads, channels, h, w]."""
    by_head = features.view(len(features) * heads, -1, features.shape[-1])  # [n * heads, channels, num_tokens]
    for part, shape in zip(by_head.split([h * w for h, w in shapes], 2), shapes):
        yield part.unflatten(2, shape)  # [n * heads, channels, h*w] -> [n * heads, channels, h, w]


def _by_level(samples: Tensor, heads: int, levels: int) -> Tensor:
    # [n, heads * levels * points, num_queries] -> [levels, n, heads, points, num_queries]
    return samples.view(len(samples), heads, levels, -1, samples.shape[-1]).permute(2, 0, 1, 3, 4)


def _scales(where: tuple, shapes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
    """Return by how much an offset of 1 moves a place of the grid along x and y, [levels, bs, 1, 1, num_queries or 1].

    The grid goes from -1 to 1 over a level's width or height.
    """
    scales = []
    for pixel, moved in zip(_pixels(shapes, like), where[2:]):
        # [bs, num_queries or 1, levels]
        scales.append(_of_queries(pixel.expand(len(like), 1, -1) if moved is None else moved.to(like.dtype) * pixel))
    return scales


def _centres(where: tuple, shapes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
    """Return where the centres lie in the grid along x and y, [levels, bs, 1, 1, num_queries]."""
    # the centre of the first pixel lies half a pixel inside
    return [
        _of_queries(centre.to(like.dtype) * pixel + (pixel / 2 - 1))
        for pixel, centre in zip(_pixels(shapes, like), where)
    ]


def _pixels(shapes: Sequence[tuple[int, int]], like: Tensor) -> list[Tensor]:
    return [like.new_tensor([2 / shape[axis] for shape in shapes]) for axis in (1, 0)]  # of x, then of y: [levels]


def _of_queries(numbers: Tensor) -> Tensor:
    return numbers.permute(2, 0, 1)[:, :, None, None]  # [bs, num_queries, levels] -> [levels, bs, 1, 1, num_queries]
