"""Multi-scale deformable attention without an intermediate for every sample, on CPU and CUDA tensors.

What is computed is that of :func:`ddq_port.ops.continuous.ms_deform_attn_forward`, rounded in another order. Sample
points are offsets of a few pixels around the centre that a query has on each level.

On a CPU each output is a weighted sum of rows of a table, four for each sample, which ``embedding_bag`` takes without
making an intermediate. Queries are taken in chunks, so that indices and weights stay in the cache; the backward pass
makes them again. Heads of few channels, whose rows are too short for that, have :mod:`ddq_port.ops.grid_sums`. Elsewhere,
and where torch writes a graph of operators down, ``grid_sample`` is summed level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid_sums import GridSum

#: Queries of a chunk on a CPU: a few hundred kB for each of its tensors.
_CHUNK = 512
#: Channels of a head from which on samples are taken row by row on a CPU.
_WIDE = 32


@dataclass(frozen=True)
class Centres:
    """Where the sample points of each query lie around, in pixels; (0, 0) is the centre of a level's first pixel.

    Attributes:
        x: [bs, num_queries, num_levels].
        y: the same.
        width: [bs, num_queries, num_levels] pixels by which an offset of 1 moves a point along x; None means 1.
        height: the same along y.
    """

    x: Tensor
    y: Tensor
    width: Tensor | None = None
    height: Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """Sample points of every query and their weights; the second axis is [heads, levels, points], flattened.

    Attributes:
        x: offsets from the centre, [bs, num_heads * num_levels * num_points, num_queries].
        y: the same.
        weights: the same shape, what each sample counts.
        num_heads: of the attention.
    """

    x: Tensor
    y: Tensor
    weights: Tensor
    num_heads: int


def sampled_sum(
    value: Tensor, shapes: Sequence[tuple[int, int]], centres: Centres, samples: Samples, padding: Tensor | None = None
) -> Tensor:
    """Sum bilinear samples of all levels for every query and head; gradients go to ``value`` and ``samples``.

    Args:
        value: [bs, num_tokens, num_heads * channels], the levels one after another. Half precision counts as float32.
        shapes: (h, w) of each level.
        centres: of the queries; there are no gradients for them.
        samples: around the centres. Outside a level there are zeros.
        padding: [bs, num_tokens] bool, True where ``value`` counts as zero, or None.

    Returns:
        [bs, num_queries, num_heads * channels], float32 or float64.
    """
    value, x, y, weights = (_computable(t) for t in (value, samples.x, samples.y, samples.weights))
    where = (centres.x, centres.y, centres.width, centres.height)
    if padding is not None:
        value = value.masked_fill(padding[..., None], 0.0)
    if value.device.type == "cpu" and not torch.compiler.is_compiling():
        function = _SampledSum if value.shape[-1] >= _WIDE * samples.num_heads else GridSum
        return function.apply(value, x, y, weights, where, tuple(shapes), samples.num_heads)
    return _by_grid_sample(value, x, y, weights, where, shapes, samples.num_heads)


def _computable(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _by_grid_sample(
    value: Tensor, x: Tensor, y: Tensor, weights: Tensor, where: tuple, shapes: Sequence[tuple[int, int]], heads: int
) -> Tensor:
    bs, _, queries = x.shape
    # [bs, heads * levels * points, num_queries] -> [bs, heads, levels, points, num_queries]
    x, y, weights = (t.view(bs, heads, len(shapes), -1, queries) for t in (x, y, weights))
    # [bs, num_queries, levels] -> [bs, 1, levels, 1, num_queries]
    cx, cy, width, height = (None if t is None else t.to(x.dtype).transpose(1, 2)[:, None, :, None] for t in where)
    x = cx + (x if width is None else x * width)
    y = cy + (y if height is None else y * height)
    by_level = zip(value.split([h * w for h, w in shapes], dim=1), shapes, *(t.unbind(2) for t in (x, y, weights)))
    output: Tensor | None = None
    for part, (h, w), of_x, of_y, weight in by_level:
        # [bs, h*w, heads*channels] -> [bs*heads, channels, h, w]
        feature = part.transpose(1, 2).reshape(bs * heads, -1, h, w)
        # [bs, heads, points, queries, 2] in [-1, 1] -> [bs*heads, points, queries, 2]
        grid = torch.stack([(2 * of_x + 1) / w - 1, (2 * of_y + 1) / h - 1], -1).flatten(0, 1)
        sampled = F.grid_sample(feature, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        # [bs*heads, channels, points, queries] * [bs*heads, 1, points, queries] -> [bs*heads, channels, queries]
        summed = (sampled * weight.flatten(0, 1)[:, None]).sum(2)
        output = summed if output is None else output + summed
    # [bs*heads, channels, queries] -> [bs, heads*channels, queries] -> [bs, queries, heads*channels]
    return output.view(bs, -1, queries).transpose(1, 2)


class _SampledSum(torch.autograd.Function):
    """The sum on a CPU; indices and factors of the rows are made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, x: Tensor, y: Tensor, weights: Tensor, where: tuple,
        shapes: tuple[tuple[int, int], ...], heads: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(value, x, y, weights)
        ctx.rest = where, shapes, heads
        bs, _, queries = x.shape
        corners = _Corners.of(shapes, heads, x)
        output = value.new_empty(bs, queries, value.shape[-1])
        for image in range(bs):
            rows = _rows(value[image], heads)
            for part in _chunks(queries):
                inds, factors = corners.read(*_samples((x, y, weights), image, part), _part(where, image, part))
                # [queries of the chunk * heads, channels] -> [queries of the chunk, heads * channels]
                output[image, part] = _bags(inds, rows, factors).view(-1, value.shape[-1])
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        value, x, y, weights = ctx.saved_tensors
        where, shapes, heads = ctx.rest
        bs, _, queries = x.shape
        corners = _Corners.of(shapes, heads, x)
        grad_value = torch.empty_like(value)
        grads = tuple(torch.empty_like(t) for t in (x, y, weights))
        for image in range(bs):
            rows, grad = _rows(value[image], heads), _rows(grad_output[image], heads)
            inds, factors = corners.buffers(queries)
            for part in _chunks(queries):
                given = (*_samples((x, y, weights), image, part), _part(where, image, part))
                # every query has as many bags as it has heads
                bags = slice(part.start * heads, part.stop * heads)
                inds[bags], factors[bags] = corners.read(*given)
                of_factors = _factor_gradients(inds[bags], rows, grad[bags])
                for out, result in zip(grads, corners.gradients(*given, of_factors)):
                    out[image, :, part] = result.t()
            # [num_tokens * heads, channels] -> [num_tokens, heads * channels]
            grad_value[image] = _row_gradients(len(rows), inds, factors, grad).view(value.shape[1:])
        return grad_value, *grads, None, None, None


def _rows(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x) * heads, -1)  # [n, heads * channels] -> [n * heads, channels]


def _chunks(queries: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, queries)) for start in range(0, queries, _CHUNK)]


def _samples(numbers: tuple[Tensor, ...], image: int, part: slice) -> list[Tensor]:
    # of each [bs, heads * levels * points, num_queries] -> [queries of the chunk, heads * levels * points]
    return [t[image, :, part].t().contiguous() for t in numbers]


def _part(where: tuple, image: int, part: slice) -> tuple:
    return tuple(None if t is None else t[image, part] for t in where)


def _bags(inds: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Return, for each of n bags, the sum of ``rows`` [N, channels] at ``inds`` [n, k] times ``factors`` [n, k]."""
    return F.embedding_bag(inds, rows, per_sample_weights=factors, mode="sum")


def _factor_gradients(inds: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of :func:`_bags` by its factors, [n, k], given that of its result."""
    bags, size = inds.shape
    starts = torch.arange(0, bags * size, size, dtype=inds.dtype)  # of each bag the place of its first row
    bag = torch.arange(bags, dtype=inds.dtype).repeat_interleave(size)  # [n * k]
    # what autograd calls for embedding_bag; it multiplies row by row, without a copy of all rows
    flat = inds.view(-1)  # [n * k]
    gradient = torch.ops.aten._embedding_bag_per_sample_weights_backward(grad, rows, flat, starts, bag, 0)
    return gradient.view(inds.shape)  # [n * k] -> [n, k]


def _row_gradients(num_rows: int, inds: Tensor, factors: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of :func:`_bags` by its rows, [num_rows, channels], given that of its result.

    It is a sum over bags again: of the results that a row went into, once these are put together by row.
    """
    rows, places = inds.view(-1).sort()  # [n * k]
    # of each row the place of its first entry, [num_rows]
    starts = torch.searchsorted(rows, torch.arange(num_rows, dtype=rows.dtype))
    in_order = factors.view(-1).index_select(0, places)  # [n * k]; an index in brackets takes nine times as long
    return F.embedding_bag(places // inds.shape[1], grad, starts, per_sample_weights=in_order, mode="sum")


@dataclass(frozen=True)
class _Corners:
    """Rows and factors of the four pixels around each sample point.

    A factor falls from 1 to 0 with the distance of a pixel in each direction, so pixels of a window of two by two
    inside the level serve for any point: one that lies outside is too far from them.

    Attributes:
        spread: [num_levels, heads * levels * points], repeats a number of each level for all of its samples.
        right: [1, heads * levels * points] of each sample the last column that may be the left one of a window.
        bottom: the last row that may be the upper one.
        wide: 0 for samples of a level of one column, else 1; None if there is no such level.
        high: the same of rows.
        pitch: pixels of a row of the level.
        first: int32, the table row of pixel (0, 0) and of the sample's head.
        pitch_rows: int32, table rows of a row of pixels.
        heads: of the attention.
        last: the highest row of the table.
    """

    spread: Tensor
    right: Tensor
    bottom: Tensor
    wide: Tensor | None
    high: Tensor | None
    pitch: Tensor
    first: Tensor
    pitch_rows: Tensor
    heads: int
    last: int

    @classmethod
    def of(cls, shapes: tuple[tuple[int, int], ...], heads: int, like: Tensor) -> _Corners:
        levels, sizes = len(shapes), [h * w for h, w in shapes]
        points = like.shape[1] // (heads * levels)
        level = torch.arange(levels).repeat_interleave(points).repeat(heads)  # [heads * levels * points]
        head = torch.arange(heads).repeat_interleave(levels * points)

        def numbers(of_levels: Sequence[int], dtype: torch.dtype = like.dtype) -> Tensor:
            return torch.tensor(of_levels, dtype=dtype)[level][None]

        heights, widths = zip(*shapes)
        starts = [sum(sizes[:i]) for i in range(levels)]
        return cls(
            spread=(level == torch.arange(levels)[:, None]).to(like.dtype),
            right=numbers([max(w - 2, 0) for w in widths]),
            bottom=numbers([max(h - 2, 0) for h in heights]),
            wide=numbers([int(w > 1) for w in widths]) if min(widths) == 1 else None,
            high=numbers([int(h > 1) for h in heights]) if min(heights) == 1 else None,
            pitch=numbers(widths),
            first=(numbers(starts, torch.int32) * heads + head).int(),
            pitch_rows=numbers([w * heads for w in widths], torch.int32),
            heads=heads,
            last=sum(sizes) * heads - 1,
        )

    def buffers(self, queries: int) -> tuple[Tensor, Tensor]:
        """Return room for rows and factors of so many queries, both [queries * heads, 4 * samples of a head]."""
        size = (queries * self.heads, 4 * self.right.shape[-1] // self.heads)
        return torch.empty(size, dtype=torch.int32), self.right.new_empty(size)

    def read(self, x: Tensor, y: Tensor, weights: Tensor, where: tuple) -> tuple[Tensor, Tensor]:
        """Return rows and factors of samples [n, heads * levels * points]: both [n * heads, 4 * samples of a head]."""
        (left, dx), (top, dy) = self._windows(x, y, where)
        inds, factors = self.buffers(len(x))
        # [n * heads, 4 * samples of a head] -> [n, heads, 4, samples of a head], for both
        row, factor = (buffer.view(len(x), self.heads, 4, -1) for buffer in (inds, factors))
        corner = top.mul_(self.pitch).add_(left).int().mul_(self.heads).add_(self.first)
        # NaN has no place; it comes out by way of its factors
        corner = torch.clamp(self._of_heads(corner), 0, self.last, out=row[:, :, 0])
        torch.add(corner, self.heads, out=row[:, :, 1])
        torch.add(corner, self._of_heads(self.pitch_rows), out=row[:, :, 2])
        torch.add(row[:, :, 2], self.heads, out=row[:, :, 3])
        if self.wide is not None or self.high is not None:  # there is no second column or row; the factor is 0
            row.clamp_(max=self.last)
        near = _nearness(dx), _nearness(dx - 1, self.wide)
        for i, of_y in enumerate((_nearness(dy), _nearness(dy - 1, self.high))):
            half = weights * of_y
            for j, of_x in enumerate(near):
                torch.mul(self._of_heads(half), self._of_heads(of_x), out=factor[:, :, 2 * i + j])
        return inds, factors

    def gradients(
        self, x: Tensor, y: Tensor, weights: Tensor, where: tuple, of_factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of offsets and weights, given those of the factors of :meth:`read`."""
        (_, dx), (_, dy) = self._windows(x, y, where)
        # [n * heads, 4 * samples of a head] -> four of [n, heads * samples of a head]
        corners = of_factors.view(len(x), self.heads, 4, -1).unbind(2)
        above_left, above_right, below_left, below_right = (t.reshape(x.shape) for t in corners)  # [n, ...]
        near_left, near_right = _nearness(dx), _nearness(dx - 1, self.wide)
        slope_left, slope_right = _slope(dx), _slope(dx - 1, self.wide)
        above = (above_left * near_left).addcmul_(above_right, near_right)
        below = (below_left * near_left).addcmul_(below_right, near_right)
        across_above = (above_left * slope_left).addcmul_(above_right, slope_right)
        across_below = (below_left * slope_left).addcmul_(below_right, slope_right)
        near_above, near_below = _nearness(dy), _nearness(dy - 1, self.high)
        grad_x = across_above.mul_(near_above).addcmul_(across_below, near_below).mul_(weights)
        grad_y = (above * _slope(dy)).addcmul_(below, _slope(dy - 1, self.high)).mul_(weights)
        if where[2] is not None:
            grad_x.mul_(where[2].to(x.dtype) @ self.spread)
            grad_y.mul_(where[3].to(x.dtype) @ self.spread)
        return grad_x, grad_y, above.mul_(near_above).addcmul_(below, near_below)

    def _windows(self, x: Tensor, y: Tensor, where: tuple) -> list[tuple[Tensor, Tensor]]:
        """Return first column and row of each sample's window, and how far the sample lies from them."""
        windows = []
        for offset, centre, scale, limit in ((x, where[0], where[2], self.right), (y, where[1], where[3], self.bottom)):
            # [n, num_levels] -> [n, heads * levels * points]
            place = centre.to(offset.dtype) @ self.spread
            if scale is None:
                place += offset
            else:
                place.addcmul_(offset, scale.to(offset.dtype) @ self.spread)
            first = torch.minimum(place.floor().clamp_(min=0), limit)
            windows.append((first, place.sub_(first)))
        return windows

    def _of_heads(self, samples: Tensor) -> Tensor:
        return samples.view(len(samples), self.heads, -1)  # [n, heads * ...] -> [n, heads, ...]


def _nearness(distance: Tensor, exists: Tensor | None = None) -> Tensor:
    """Return the share of a pixel at a signed distance; it has none where it does not exist."""
    near = distance.abs().neg_().add_(1).clamp_(min=0)
    return near if exists is None else near.mul_(exists)


def _slope(distance: Tensor, exists: Tensor | None = None) -> Tensor:
    """Return the derivative of :func:`_nearness`; at a kink that to the right, as ``grid_sample`` has it."""
    slope = 1 - 2 * (distance >= 0).to(distance.dtype)
    slope.mul_(distance >= -1).mul_(distance < 1)
    return slope if exists is None else slope.mul_(exists)
