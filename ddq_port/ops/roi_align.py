"""RoIAlign of mmcv's compiled extension, forward and backward, in plain torch, under mmcv's own names.

Names, argument names and argument order are those of the C++ bindings (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/pybind.cpp``; they are the same in 1.4.7 and 1.7.2). Every rounding, and the order in which
terms are added, is that of the CPU kernel (``csrc/pytorch/cpu/roi_align.cpp``), so results and gradients in float32 and
float64 equal those of the compiled operator bit for bit. float16 and bfloat16 are computed in float32 and rounded once
at the end, where the compiled kernel rounds float16 at each step.

Like :mod:`ddq_port.ops.continuous`, this file serves both sides of a comparison: the legacy side loads it by its path.
It therefore imports torch only and is written for Python 3.8.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple

import torch
from torch import Tensor

__all__ = ["roi_align_backward", "roi_align_forward"]

_MAX, _AVERAGE = 0, 1
_FLOOR = -10000.0
"""What the kernel starts a maximum from, and the result of a bin without samples."""
_NOWHERE = -1.0
"""Coordinate of the maximum of a bin in which no value exceeds that."""

# Numbers gathered at once: a part of this size stays in a CPU's cache, and memory does not grow with the RoIs.
_PART = 1 << 20


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled features of every RoI into ``output``, in place.

    Args:
        input: features, [B, C, H, W].
        rois: [R, 5] as (image, x1, y1, x2, y2), in pixels of the image.
        output: buffer [R, C, aligned_height, aligned_width], overwritten.
        argmax_y: buffer of that shape for the row of each maximum; not used for averages.
        argmax_x: the same for the column.
        aligned_height: bins per RoI, from top to bottom.
        aligned_width: bins per RoI, from left to right.
        spatial_scale: of an image's pixels to the feature map's; rounded to float32, as by the binding.
        sampling_ratio: samples per bin and axis; 0 takes as many as the bin has pixels, rounded up.
        pool_mode: 0 for the maximum of a bin's samples, 1 for their average.
        aligned: shift by half a pixel, and refuse RoIs of negative size; otherwise RoIs have at least one pixel.

    Raises:
        RuntimeError: of an aligned RoI of negative size, as the compiled operator.
        ValueError: of a RoI that is not finite or of no image; the compiled operator reads foreign memory.
    """
    features = _computable(input)
    table = _as_rows(features)  # [B*H*W, C]
    bins = _Bins.of(features.shape, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    for first, last in bins.parts(features.shape[1]):
        samples = bins.samples(first, last)
        values = samples.values(table)  # [S, C]
        if pool_mode == _MAX:
            results = samples.maxima(values)
            targets = (output, argmax_y, argmax_x)
        else:
            results = (samples.sums(values) / samples.counts.clamp(min=1).to(values.dtype)[:, None],)
            targets = (output,)
        for target, rows in zip(targets, results):
            # [bins, C] -> [r, ph, pw, C] -> [r, C, ph, pw]
            target[first:last] = rows.view(last - first, aligned_height, aligned_width, -1).permute(0, 3, 1, 2)


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient by the features to ``grad_input``, in place.

    Args:
        grad_output: [R, C, aligned_height, aligned_width].
        rois: as in :func:`roi_align_forward`, like all that is not told here.
        argmax_y: what the forward function wrote, [R, C, aligned_height, aligned_width]; not used for averages.
        argmax_x: the same for the column.
        grad_input: buffer [B, C, H, W]; mmcv gives zeros.
        aligned_height: as there.
        aligned_width: as there.
        spatial_scale: as there.
        sampling_ratio: as there.
        pool_mode: as there.
        aligned: as there.

    Raises:
        RuntimeError: as there.
        ValueError: as there.
    """
    gradient, total = _computable(grad_output), _computable(grad_input)
    shape = total.shape
    bins = _Bins.of(shape, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned)
    table = _as_rows(total).clone()  # [B*H*W, C]
    for first, last in bins.parts(4 * shape[1]):
        rows = gradient[first:last].permute(0, 2, 3, 1).reshape(-1, shape[1])  # [bins, C]
        if pool_mode == _MAX:
            y, x = (_as_rows(_computable(part[first:last])) for part in (argmax_y, argmax_x))  # [bins, C]
            _add_at_maxima(table, rows, y, x, bins.images(first, last), shape)
        else:
            bins.samples(first, last).add_shares(table, rows)
    # [B, H, W, C] -> [B, C, H, W]
    grad_input.copy_(table.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2))


class _Axis(NamedTuple):
    """Neighbours of coordinates along one axis: their places and weights, and which coordinates lie on the map."""

    low: Tensor
    high: Tensor
    to_low: Tensor
    to_high: Tensor
    inside: Tensor

    @classmethod
    def of(cls, at: Tensor, size: int) -> _Axis:
        """Return the neighbours of the coordinates ``at``, of any shape, on an axis of ``size`` pixels."""
        inside = (at >= -1) & (at <= size)
        at = at.masked_fill(at <= 0, 0.0)
        low = at.clamp(max=size).long()
        at_end = low >= size - 1
        low = low.clamp(max=size - 1)
        high = (low + 1).clamp(max=size - 1)
        to_high = (at - low.to(at.dtype)).masked_fill(at_end, 0.0)
        return cls(low, high, 1 - to_high, to_high, inside)


class _Samples(NamedTuple):
    """The samples of some bins, bin by bin, S in all, each with its four neighbours in the order of the kernel.

    Attributes:
        counts: int64 [bins], samples of each bin.
        bins: int64 [S], the bin of each sample.
        y: [S], coordinates on the feature map.
        x: [S].
        places: int64 [S, 4], rows of the table of features; the image's first row of a sample off the map.
        weights: [S, 4]; 0 of a sample off the map.
        inside: bool [S].
    """

    counts: Tensor
    bins: Tensor
    y: Tensor
    x: Tensor
    places: Tensor
    weights: Tensor
    inside: Tensor

    def values(self, table: Tensor) -> Tensor:
        """Interpolate the features at the samples: [S, C]."""
        total = table.index_select(0, self.places[:, 0]).mul_(self.weights[:, :1])
        for corner in range(1, 4):
            total.add_(table.index_select(0, self.places[:, corner]).mul_(self.weights[:, corner : corner + 1]))
        return total

    def sums(self, values: Tensor) -> Tensor:
        """Add the values of each bin in their order: [bins, C]."""
        total = values.new_zeros(self.counts.numel(), values.shape[1])
        for rows, places in self._rounds():
            if rows is None:
                total.add_(values[places])
            else:
                total.index_add_(0, rows, values[places])
        return total

    def maxima(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first largest value of each bin and its y and x, each [bins, C]."""
        best = values.new_full((self.counts.numel(), values.shape[1]), _FLOOR)
        y, x = torch.full_like(best, _NOWHERE), torch.full_like(best, _NOWHERE)
        for rows, places in self._rounds():
            chosen = slice(None) if rows is None else rows
            better = values[places] > best[chosen]
            for target, source in ((best, values[places]), (y, self.y[places, None]), (x, self.x[places, None])):
                target[chosen] = torch.where(better, source, target[chosen])
        return best, y, x

    def add_shares(self, table: Tensor, gradient: Tensor) -> None:
        """Add to each neighbour of each sample its share of the bin's gradient, [bins, C], in the kernel's order."""
        used = self.inside.nonzero().view(-1)  # [n]
        bins = self.bins[used]
        shares = gradient.index_select(0, bins)[:, None] * self.weights[used][:, :, None]  # [S, 4, C]
        shares.div_(self.counts[bins].to(shares.dtype)[:, None, None])
        table.index_add_(0, self.places[used].view(-1), shares.view(-1, table.shape[1]))  # [4*S], [4*S, C]

    def _rounds(self) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Give the bins with a first sample, and these samples; then those with a second; None for all bins."""
        starts = self.counts.cumsum(0) - self.counts
        for number in range(int(self.counts.max()) if self.counts.numel() else 0):
            more = self.counts > number
            if bool(more.all()):
                yield None, starts + number
            else:
                rows = more.nonzero().view(-1)  # [bins that have one]
                yield rows, starts[rows] + number


class _Bins(NamedTuple):
    """The bins of all RoIs: where they begin, their size and how many samples they have along y and x.

    Attributes:
        shape: of the features, [B, C, H, W].
        pooled: bins of a RoI along y and x.
        image: int64 [R].
        start: [R, 2] as (y, x), like the two below.
        size: [R, 2].
        grid: int64 [R, 2].
    """

    shape: torch.Size
    pooled: tuple[int, int]
    image: Tensor
    start: Tensor
    size: Tensor
    grid: Tensor

    @classmethod
    def of(
        cls, shape: torch.Size, rois: Tensor, pooled: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
    ) -> _Bins:
        """Lay the bins into the RoIs, [R, 5]; the other arguments as of :func:`roi_align_forward`."""
        rois = _computable(rois)
        _check_rois(rois, shape[0])
        corners = rois[:, 1:] * torch.tensor(scale, dtype=torch.float32).to(rois)
        corners = corners - (0.5 if aligned else 0.0)
        start, extent = corners[:, [1, 0]], corners[:, [3, 2]] - corners[:, [1, 0]]  # [R, 2] each
        if aligned:
            _check_sizes(rois, extent)
        else:
            extent = extent.clamp(min=1)
        size = extent / torch.tensor(pooled).to(extent)
        # the kernel rounds up with `ceilf`, which takes float32
        grid = size.float().ceil().long() if sampling_ratio <= 0 else torch.full_like(size, sampling_ratio).long()
        return cls(shape, pooled, rois[:, 0].long(), start, size, grid)

    def parts(self, width: int) -> list[tuple[int, int]]:
        """Cut the RoIs, in their order, into parts whose samples hold about a million numbers, ``width`` each."""
        work = (self.grid.prod(1).clamp(min=1) * (self.pooled[0] * self.pooled[1] * width)).cumsum(0)
        numbers = torch.div(work - 1, _PART, rounding_mode="floor")  # [R], of the part in which a RoI ends
        ends = (numbers[1:] != numbers[:-1]).nonzero().view(-1) + 1  # [parts - 1]
        edges = [0, *ends.tolist(), len(numbers)]
        return [(first, last) for first, last in zip(edges, edges[1:]) if last > first]

    def images(self, first: int, last: int) -> Tensor:
        """Return the image of each bin of the RoIs from ``first`` to before ``last``: int64 [bins]."""
        return self.image[first:last].repeat_interleave(self.pooled[0] * self.pooled[1])

    def samples(self, first: int, last: int) -> _Samples:
        """Return the samples of the RoIs from ``first`` to before ``last``."""
        (rows, columns), grid = self.pooled, self.grid[first:last]
        counts = grid.prod(1).repeat_interleave(rows * columns)  # [bins]
        device = counts.device
        bins = torch.arange(counts.numel(), device=device).repeat_interleave(counts)  # [S]
        number = torch.arange(bins.numel(), device=device) - (counts.cumsum(0) - counts)[bins]  # [S], within its bin
        roi, cell = _divided(bins, rows * columns)
        at = []
        for axis, (index, sample) in enumerate(zip(_divided(cell, columns), _divided(number, grid[roi, 1]))):
            start, size = self.start[first:last, axis][roi], self.size[first:last, axis][roi]
            within = (sample.to(size) + 0.5) * size / grid[roi, axis].to(size)
            at.append(start + index.to(size) * size + within)
        places, weights, inside = _neighbours(at[0], at[1], self.image[first:last][roi], self.shape)
        return _Samples(counts, bins, at[0], at[1], places, weights, inside)


def _neighbours(y: Tensor, x: Tensor, image: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return places [..., 4] in the table of features, weights [..., 4], and who lies on the map, of samples [...]."""
    height, width = shape[2:]
    rows, columns = _Axis.of(y, height), _Axis.of(x, width)
    inside = rows.inside & columns.inside
    pairs = [(row, column) for row in (rows.low, rows.high) for column in (columns.low, columns.high)]
    places = torch.stack([row * width + column for row, column in pairs], -1)  # [..., 4]
    shares = [(row, column) for row in (rows.to_low, rows.to_high) for column in (columns.to_low, columns.to_high)]
    weights = torch.stack([row * column for row, column in shares], -1)  # [..., 4]
    off = ~inside[..., None]
    base = (image * (height * width))[..., None]
    return places.masked_fill(off, 0) + base, weights.masked_fill(off, 0.0), inside


def _add_at_maxima(
    table: Tensor, gradient: Tensor, y: Tensor, x: Tensor, images: Tensor, shape: torch.Size
) -> None:
    """Add the gradient of each maximum to its neighbours; all but ``images`` [bins] are [bins, C]."""
    channels = gradient.shape[1]
    places, weights, inside = _neighbours(y, x, images[:, None].expand_as(y), shape)  # [bins, C, 4]
    used = (inside & (y != _NOWHERE)).view(-1).nonzero().view(-1)  # [n] of bins*C
    shares = (gradient[..., None] * weights).view(-1, 4)[used]  # [n, 4]
    channel = torch.arange(channels, device=table.device).expand_as(y).reshape(-1)[used]  # [bins, C] -> [n]
    flat = places.view(-1, 4)[used] * channels + channel[:, None]  # [n, 4]
    table.view(-1).index_add_(0, flat.view(-1), shares.view(-1))  # [4*n]


def _divided(number: Tensor, by: Tensor | int) -> tuple[Tensor, Tensor]:
    quotient = torch.div(number, by, rounding_mode="floor")
    return quotient, number - quotient * by


def _as_rows(maps: Tensor) -> Tensor:
    """[n, C, h, w] -> [n*h*w, C]"""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # [n, h, w, C] -> [n*h*w, C]


def _computable(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_rois(rois: Tensor, images: int) -> None:
    if rois.numel() == 0:
        return
    if not bool(rois.isfinite().all()):
        bad = int((~rois.isfinite()).any(1).sum())
        raise ValueError(
            "roi_align: all RoIs must be finite, found {} of {} that are not; look for the first non-finite value "
            "upstream.".format(bad, len(rois))
        )
    low, high = int(rois[:, 0].min()), int(rois[:, 0].max())
    if low < 0 or high >= images:
        raise ValueError(
            "roi_align: RoIs must be of images 0 to {}, found {} to {}; look at the first column.".format(
                images - 1, low, high
            )
        )


def _check_sizes(rois: Tensor, extent: Tensor) -> None:
    """Refuse RoIs [R, 5] whose ``extent`` [R, 2] is negative; the compiled operator raises the same kind of error."""
    negative = (extent < 0).any(1).nonzero().view(-1)  # [RoIs that are]
    if negative.numel():
        raise RuntimeError(
            "roi_align: with aligned=True no RoI may have a negative size, found {} of {}, first RoI {} with (x1, y1, "
            "x2, y2) = {}; look at what decodes or clips the boxes.".format(
                negative.numel(), len(rois), int(negative[0]), tuple(rois[negative[0], 1:].tolist())
            )
        )
