"""Multi-scale deformable attention without an intermediate for every sample, on CPU and CUDA tensors.

What is computed is that of :func:`ddq_port.ops.continuous.ms_deform_attn_forward`, rounded in another order. Sample
points are offsets of a few pixels around the centre that a query has on each level.

On a CPU each output is a weighted sum of rows of a table, four for each sample, which :func:`torch.nn.functional.
embedding_bag` takes without making an intermediate. Queries are taken in chunks, so that indices and weights stay in
the cache; the backward pass makes them again. Elsewhere :func:`torch.nn.functional.grid_sample` is summed level by level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Queries of a chunk on a CPU: a few hundred kB for each of its tensors.
_CHUNK = 512


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
    """Sample points of every query and their weights; the last axis is [heads, levels, points], flattened.

    Attributes:
        x: offsets from the centre, [bs, num_queries, num_heads * num_levels * num_points].
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
    if value.device.type == "cpu":
        return _SampledSum.apply(value, x, y, weights, padding, where, tuple(shapes), samples.num_heads)
    if padding is not None:
        value = value.masked_fill(padding[..., None], 0.0)
    return _by_grid_sample(value, x, y, weights, where, shapes, samples.num_heads)


def _computable(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _by_grid_sample(
    value: Tensor, x: Tensor, y: Tensor, weights: Tensor, where: tuple, shapes: Sequence[tuple[int, int]], heads: int
) -> Tensor:
    bs, queries, _ = x.shape
    # [bs, num_queries, heads * levels * points] -> [bs, num_queries, heads, levels, points]
    x, y, weights = (t.view(bs, queries, heads, len(shapes), -1) for t in (x, y, weights))
    cx, cy, width, height = (None if t is None else t.to(x.dtype)[:, :, None, :, None] for t in where)
    x = cx + (x if width is None else x * width)
    y = cy + (y if height is None else y * height)
    output: Tensor | None = None
    for level, part in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        h, w = shapes[level]
        # [bs, h*w, heads*channels] -> [bs*heads, channels, h, w]
        feature = part.transpose(1, 2).reshape(bs * heads, -1, h, w)
        # [bs, queries, heads, points, 2] in [-1, 1] -> [bs*heads, queries, points, 2]
        grid = torch.stack([(2 * x[..., level, :] + 1) / w - 1, (2 * y[..., level, :] + 1) / h - 1], -1)
        grid = grid.transpose(1, 2).flatten(0, 1)  # [bs*heads, queries, points, 2]
        sampled = F.grid_sample(feature, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        # [bs, queries, heads, points] -> [bs*heads, 1, queries, points]
        weight = weights[..., level, :].transpose(1, 2).flatten(0, 1)[:, None]
        summed = (sampled * weight).sum(-1)  # [bs*heads, channels, queries]
        output = summed if output is None else output + summed
    # [bs*heads, channels, queries] -> [bs, heads*channels, queries] -> [bs, queries, heads*channels]
    return output.view(bs, -1, queries).transpose(1, 2)


class _SampledSum(torch.autograd.Function):
    """The sum on a CPU; indices and weights of the rows are made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, x: Tensor, y: Tensor, weights: Tensor, padding: Tensor | None, where: tuple,
        shapes: tuple[tuple[int, int], ...], heads: int,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(value, x, y, weights)
        ctx.rest = padding, where, shapes, heads
        bs, queries, _ = x.shape
        table = _Table.of(value, padding, shapes, heads)
        corners = _Corners.of(table, x)
        output = value.new_empty(bs, queries, value.shape[-1])
        for image in range(bs):
            rows = table.rows(image)
            for part in _chunks(queries):
                inds, factors = corners.read(*(t[image, part] for t in (x, y, weights)), _part(where, image, part))
                # [queries of the chunk * heads, channels] -> [queries of the chunk, heads * channels]
                output[image, part] = _bags(inds, rows, factors).view(-1, value.shape[-1])
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple:
        value, x, y, weights = ctx.saved_tensors
        padding, where, shapes, heads = ctx.rest
        bs, queries, _ = x.shape
        table = _Table.of(value, padding, shapes, heads)
        corners = _Corners.of(table, x)
        grad_table = torch.zeros_like(table.padded)
        grads = tuple(torch.empty_like(t) for t in (x, y, weights))
        for image in range(bs):
            # [num_queries * heads, channels]
            grad = grad_output[image].reshape(queries * heads, -1)
            rows = table.rows(image)
            inds, factors = corners.buffers(queries)
            for part in _chunks(queries):
                given = (*(t[image, part] for t in (x, y, weights)), _part(where, image, part))
                # every query has as many rows as it has heads
                bags = slice(part.start * heads, part.stop * heads)
                inds[bags], factors[bags] = corners.read(*given)
                of_factors = _factor_gradients(inds[bags], rows, factors[bags], grad[bags])
                for out, result in zip(grads, corners.gradients(*given, of_factors)):
                    out[image, part] = result
            _add_rows(grad_table[image], inds, factors, grad)
        return table.unpadded(grad_table, padding), *grads, None, None, None, None


def _chunks(queries: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, queries)) for start in range(0, queries, _CHUNK)]


def _part(where: tuple, image: int, part: slice) -> tuple:
    return tuple(None if t is None else t[image, part] for t in where)


def _bags(inds: Tensor, rows: Tensor, factors: Tensor) -> Tensor:
    """Return, for each of n bags, the sum of ``rows`` [N, channels] at ``inds`` [n, k] times ``factors`` [n, k]."""
    return F.embedding_bag(inds, rows, per_sample_weights=factors, mode="sum")


def _factor_gradients(inds: Tensor, rows: Tensor, factors: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient of :func:`_bags` by its factors, [n, k], given that of its result."""
    leaf = factors.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(_bags(inds, rows, leaf), leaf, grad)[0]


def _add_rows(target: Tensor, inds: Tensor, factors: Tensor, grad: Tensor) -> None:
    """Add the gradient of :func:`_bags` by its rows to ``target`` [N, channels], given that of its result.

    It is a sum over bags again: of the results that a row went into, once these are put together by row.
    """
    bag_size = inds.shape[1]
    rows, places = inds.view(-1).sort()  # [n * k]
    # of each row the place of its first entry, [N]
    starts = torch.searchsorted(rows, torch.arange(len(target), dtype=rows.dtype), out_int32=True)
    sources = (places // bag_size).int()
    target += F.embedding_bag(
        sources, grad, starts, per_sample_weights=factors.view(-1)[places], mode="sum"
    )


@dataclass(frozen=True)
class _Table:
    """The levels of all images as rows to be looked up, with a border of zeros where samples may fall outside.

    Attributes:
        padded: [bs, rows * heads, channels]; a level of (h, w) has h + 3 rows of w + 2 pixels, and there is one more.
        shapes: (h, w) of each level.
        starts: of each level in pixels.
        heads: of the attention.
    """

    padded: Tensor
    shapes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    heads: int

    @classmethod
    def of(
        cls, value: Tensor, padding: Tensor | None, shapes: tuple[tuple[int, int], ...], heads: int
    ) -> _Table:
        bs, _, dim = value.shape
        sizes = [(h + 3) * (w + 2) for h, w in shapes]
        starts = tuple(sum(sizes[:level]) for level in range(len(shapes)))
        padded = value.new_zeros(bs, sum(sizes) + 1, dim)
        # [bs, pixels, heads * channels] -> [bs, pixels * heads, channels]
        table = cls(padded.view(bs, -1, dim // heads), shapes, starts, heads)
        table._write(value, padding)
        return table

    def rows(self, image: int) -> Tensor:
        """Return the rows of an image, [pixels * heads, channels]."""
        return self.padded[image]

    def unpadded(self, like: Tensor, padding: Tensor | None) -> Tensor:
        """Return of ``like``, shaped as the table, what lies where the values came from."""
        # [bs, h, w, heads * channels] -> [bs, h * w, heads * channels] of each level, then [bs, num_tokens, ...]
        parts = [inner.flatten(1, 2) for inner in self._inner(like)]
        tokens = torch.cat(parts, 1)  # [bs, num_tokens, heads * channels]
        return tokens if padding is None else tokens.masked_fill_(padding[..., None], 0.0)

    def _write(self, value: Tensor, padding: Tensor | None) -> None:
        parts = value.split([h * w for h, w in self.shapes], 1)
        for inner, part in zip(self._inner(self.padded), parts):
            inner.copy_(part.view(inner.shape))  # [bs, h * w, dim] -> [bs, h, w, dim]
        if padding is None:
            return
        for inner, part in zip(self._inner(self.padded), padding.split([h * w for h, w in self.shapes], 1)):
            inner.masked_fill_(part.view(*inner.shape[:-1], 1), 0.0)  # [bs, h * w] -> [bs, h, w, 1]

    def _inner(self, padded: Tensor) -> list[Tensor]:
        """Return views [bs, h, w, heads * channels] of the levels without their borders."""
        whole = padded.view(len(padded), -1, self.heads * padded.shape[-1])  # [bs, pixels, heads * channels]
        inner = []
        for (h, w), start in zip(self.shapes, self.starts):
            # [bs, (h + 3) * (w + 2), dim] -> [bs, h + 3, w + 2, dim]
            level = whole[:, start : start + (h + 3) * (w + 2)].view(len(whole), h + 3, w + 2, -1)
            inner.append(level[:, 1 : h + 1, 1 : w + 1])
        return inner


@dataclass(frozen=True)
class _Corners:
    """Rows and factors of the four pixels around each sample point.

    Attributes:
        spread: [num_levels, heads * levels * points], repeats a number of each level for all of its samples.
        right: [1, heads * levels * points] of each sample the width of its level in pixels, in the points' dtype.
        bottom: the height.
        pitch: the pixels of a row of the table.
        first: int32, the table row of pixel (0, 0) and of the sample's head.
        pitch_rows: int32, table rows of a row of pixels.
        heads: of the attention.
        last: the highest row of the table.
    """

    spread: Tensor
    right: Tensor
    bottom: Tensor
    pitch: Tensor
    first: Tensor
    pitch_rows: Tensor
    heads: int
    last: int

    @classmethod
    def of(cls, table: _Table, like: Tensor) -> _Corners:
        heads, levels = table.heads, len(table.shapes)
        points = like.shape[-1] // (heads * levels)
        level = torch.arange(levels).repeat_interleave(points).repeat(heads)  # [heads * levels * points]
        head = torch.arange(heads).repeat_interleave(levels * points)

        def numbers(of_levels: Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(of_levels, dtype=dtype)[level][None]

        pitch = [w + 2 for _, w in table.shapes]
        first = [start + width + 1 for start, width in zip(table.starts, pitch)]
        return cls(
            spread=(level == torch.arange(levels)[:, None]).to(like.dtype),
            right=numbers([w for _, w in table.shapes], like.dtype),
            bottom=numbers([h for h, _ in table.shapes], like.dtype),
            pitch=numbers(pitch, like.dtype),
            first=(numbers(first, torch.int32) * heads + head).int(),
            pitch_rows=numbers([width * heads for width in pitch], torch.int32),
            heads=heads,
            last=table.padded.shape[1] - 1,
        )

    def buffers(self, queries: int) -> tuple[Tensor, Tensor]:
        """Return room for rows and factors of so many queries, both [queries * heads, 4 * samples of a head]."""
        size = (queries * self.heads, 4 * self.right.shape[-1] // self.heads)
        return torch.empty(size, dtype=torch.int32), self.right.new_empty(size)

    def read(self, x: Tensor, y: Tensor, weights: Tensor, where: tuple) -> tuple[Tensor, Tensor]:
        """Return rows and factors of samples [n, heads * levels * points]: both [n * heads, 4 * samples of a head]."""
        left, top, fx, fy, _ = self._places(x, y, where)
        corner = (top * self.pitch).add_(left).int().mul_(self.heads).add_(self.first)
        corner.clamp_(0, self.last)  # NaN has no place; it comes out by way of its factors
        inds, factors = self.buffers(len(x))
        # [n * heads, 4 * samples of a head] -> [n, heads, 4, samples of a head]
        by_corner = inds.view(len(x), self.heads, 4, -1)
        corner = self._of_heads(corner)
        pitch_rows = self._of_heads(self.pitch_rows)
        by_corner[:, :, 0] = corner
        torch.add(corner, self.heads, out=by_corner[:, :, 1])
        torch.add(corner, pitch_rows, out=by_corner[:, :, 2])
        torch.add(by_corner[:, :, 2], self.heads, out=by_corner[:, :, 3])
        below = weights * fy
        above = weights - below
        right_above, right_below = above * fx, below * fx
        factor = factors.view(len(x), self.heads, 4, -1)  # [n, heads, 4, samples of a head]
        torch.sub(self._of_heads(above), self._of_heads(right_above), out=factor[:, :, 0])
        factor[:, :, 1] = self._of_heads(right_above)
        torch.sub(self._of_heads(below), self._of_heads(right_below), out=factor[:, :, 2])
        factor[:, :, 3] = self._of_heads(right_below)
        return inds, factors

    def gradients(
        self, x: Tensor, y: Tensor, weights: Tensor, where: tuple, of_factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of offsets and weights, given those of the factors of :meth:`read`."""
        _, _, fx, fy, inside = self._places(x, y, where)
        # [n * heads, 4 * samples of a head] -> four of [n, heads * samples of a head]
        corners = of_factors.view(len(x), self.heads, 4, -1).unbind(2)
        left_above, right_above, left_below, right_below = (corner.reshape(x.shape) for corner in corners)  # [n, ...]
        across_above, across_below = right_above - left_above, right_below - left_below
        above, below = torch.addcmul(left_above, across_above, fx), torch.addcmul(left_below, across_below, fx)
        down = below - above
        across = torch.addcmul(across_above, across_below - across_above, fy)
        grad_x, grad_y = across.mul_(weights).mul_(inside[0]), down.mul(weights).mul_(inside[1])
        if where[2] is not None:
            grad_x.mul_(where[2].to(x.dtype) @ self.spread)
            grad_y.mul_(where[3].to(x.dtype) @ self.spread)
        return grad_x, grad_y, torch.addcmul(above, down, fy)

    def _places(self, x: Tensor, y: Tensor, where: tuple) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple]:
        """Return pixel left of, pixel above, shares right of and below them, and where a point may move."""
        places, inside = [], []
        for offset, centre, scale, limit in ((x, where[0], where[2], self.right), (y, where[1], where[3], self.bottom)):
            # [n, num_levels] -> [n, heads * levels * points]
            place = centre.to(offset.dtype) @ self.spread
            if scale is None:
                place += offset
            else:
                place.addcmul_(offset, scale.to(offset.dtype) @ self.spread)
            inside.append((place > -1) & (place < limit))
            places.append(torch.minimum(place, limit).clamp_(min=-1))  # beyond are zeros only
        left, top = places[0].floor(), places[1].floor()
        return left, top, places[0].sub_(left), places[1].sub_(top), tuple(inside)

    def _of_heads(self, samples: Tensor) -> Tensor:
        return samples.view(len(samples), self.heads, -1)  # [n, heads * ...] -> [n, heads, ...]
