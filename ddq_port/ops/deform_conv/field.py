"""What deformable convolutions with and without masks have in common: their form, and the points that they read.

Words: a *point* is one place that one output pixel reads, for one tap of the kernel; R is the number of points of some
images, in the order (image, deformable group, tap, output pixel). Ci is the channels of one deformable group.
"""

from __future__ import annotations

from typing import Iterator, NamedTuple

import torch
from torch import Tensor

# Numbers gathered at once: a part of this size stays in a CPU's cache.
_PART = 1 << 20


class Form(NamedTuple):
    """Form of a convolution: kernel, stride, padding and dilation as (along y, along x), and groups of channels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    deformable_groups: int

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (H', W') of images of (H, W)."""
        spans = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(self.dilation, self.kernel)]
        height, width = (
            (length + 2 * padding - span) // stride + 1
            for length, padding, span, stride in zip(size, self.padding, spans, self.stride)
        )
        return height, width

    def product(self, kernel: Tensor, columns: Tensor) -> Tensor:
        """Multiply a kernel [C', C/groups, kh, kw] by columns [C*kh*kw, N]: [C', N]."""
        parts = columns.view(self.groups, -1, columns.shape[1])  # [groups, C/groups*kh*kw, N]
        result = columns.new_zeros(self.groups, len(kernel) // self.groups, columns.shape[1])
        for number, part in enumerate(self._grouped(kernel)):
            result[number].addmm_(part, parts[number])
        return result.view(len(kernel), -1)  # [C', N]

    def transposed_product(self, kernel: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient by the columns, [C*kh*kw, n*H'*W'], from that by the output, [n, C', H', W']."""
        outputs = self._by_channel(gradient)  # [groups, C'/groups, n*H'*W']
        parts = self._grouped(kernel)
        result = gradient.new_zeros(self.groups, parts[0].shape[1], outputs.shape[2])
        for number, part in enumerate(parts):
            # [C/groups*kh*kw, C'/groups]
            result[number].addmm_(part.transpose(0, 1), outputs[number], beta=0.0, alpha=1.0)
        return result.view(-1, outputs.shape[2])  # [C*kh*kw, n*H'*W']

    def add_weight_gradient(self, total: Tensor, gradient: Tensor, columns: Tensor, scale: float) -> None:
        """Add to ``total``, of the kernel's shape, what the output's gradient [n, C', H', W'] gives."""
        # [groups, C'/groups, N], [groups, C/groups*kh*kw, N]
        outputs, parts = self._by_channel(gradient), columns.view(self.groups, -1, columns.shape[1])
        for number, part in enumerate(self._grouped(total)):
            part.addmm_(outputs[number], parts[number].transpose(0, 1), beta=1.0, alpha=scale)  # [N, C/groups*kh*kw]

    def add_bias_gradient(self, total: Tensor, gradient: Tensor) -> None:
        """Add to ``total`` [C'] the sums over the output's gradient, [1, C', H', W']."""
        outputs = self._by_channel(gradient)
        ones = gradient.new_ones(outputs.shape[2], 1)
        for number, part in enumerate(total.view(self.groups, -1, 1).unbind(0)):
            part.addmm_(outputs[number], ones)

    def _grouped(self, kernel: Tensor) -> list[Tensor]:
        """Return the kernel of each group as a matrix [C'/groups, C/groups*kh*kw] that shares its memory."""
        # [groups, C'/groups, C/groups*kh*kw]
        return list(kernel.view(self.groups, len(kernel) // self.groups, -1).unbind(0))

    def _by_channel(self, gradient: Tensor) -> Tensor:
        """[n, C', H', W'] -> [groups, C'/groups, n*H'*W']"""
        channels = gradient.shape[1]
        # [groups, C'/groups, n*H'*W']
        return gradient.transpose(0, 1).reshape(self.groups, channels // self.groups, -1)


class Field(NamedTuple):
    """The points that a convolution reads from some images.

    Attributes:
        images: [n, C, H, W].
        groups: deformable groups.
        taps: of the kernel, kh * kw.
        size: (H', W').
        y: [R], coordinates in the image; -2 of a point off it.
        x: [R].
        low_y: [R], whole numbers at most that large.
        low_x: [R].
        inside: bool [R].
        masks: [R], factors of what is read; None for none.
        table: [n*groups*H*W + 1, Ci], the images' pixels and a last row of zeros.
        places: int64 [R, 4], rows of the table: the neighbours above left, above right, below left, below right.
    """

    images: Tensor
    groups: int
    taps: int
    size: tuple[int, int]
    y: Tensor
    x: Tensor
    low_y: Tensor
    low_x: Tensor
    inside: Tensor
    masks: Tensor | None
    table: Tensor
    places: Tensor

    @classmethod
    def of(cls, form: Form, images: Tensor, offsets: Tensor, masks: Tensor | None = None) -> Field:
        """Lay out the points of images [n, C, H, W]; offsets and masks as the operators are given them."""
        count, channels, height, width = images.shape
        groups, taps = form.deformable_groups, form.kernel[0] * form.kernel[1]
        size = form.output_size((height, width))
        _check_shape("offset", offsets, (count, groups * 2 * taps, *size))
        if masks is not None:
            _check_shape("mask", masks, (count, groups * taps, *size))
        moved = offsets.reshape(count, groups, taps, 2, *size)  # [n, groups, taps, 2, H', W']
        y, x = (_grid(form, axis, size, images) + moved[:, :, :, axis] for axis in (0, 1))  # [n, groups, taps, H', W']
        y, x = y.reshape(-1), x.reshape(-1)  # [R]
        inside = (y > -1) & (x > -1) & (y < height) & (x < width)
        y, x = (at.masked_fill(~inside, -2.0) for at in (y, x))
        # the kernel for masks takes `floorf`, which is of float32
        low_y, low_x = ((at if masks is None else at.float()).floor().to(at.dtype) for at in (y, x))
        # [n*groups*H*W, Ci]
        table = images.view(count * groups, channels // groups, -1).transpose(1, 2).reshape(-1, channels // groups)
        table = torch.cat([table, table.new_zeros(1, channels // groups)])  # [n*groups*H*W + 1, Ci]
        places = _places(low_y.long(), low_x.long(), (height, width), len(table) - 1)
        masks = None if masks is None else masks.reshape(-1)  # [R]
        return cls(images, groups, taps, size, y, x, low_y, low_x, inside, masks, table, places)

    def columns(self) -> Tensor:
        """Read the images at all points, times the masks: [C*taps, n*H'*W']."""
        rows = torch.cat([self._read(part) for part in self._parts()])  # [R, Ci]
        rows = rows.view(len(self.images), self.groups, self.taps, -1, rows.shape[1])  # [n, groups, taps, H'*W', Ci]
        # [n, groups, taps, H'*W', Ci] -> [groups, Ci, taps, n, H'*W']
        # contiguous, for the product of a transposed matrix rounds otherwise
        return rows.permute(1, 4, 2, 0, 3).reshape(self.images.shape[1] * self.taps, -1).contiguous()  # [C*taps, N]

    def rows_of(self, columns: Tensor) -> Tensor:
        """[C*taps, n*H'*W'] -> [R, Ci]"""
        channels = self.table.shape[1]
        parts = columns.view(self.groups, channels, self.taps, len(self.images), -1)  # [groups, Ci, taps, n, H'*W']
        return parts.permute(3, 0, 2, 4, 1).reshape(-1, channels)  # [n, groups, taps, H'*W', Ci] -> [R, Ci]

    def image_gradient(self, rows: Tensor) -> Tensor:
        """Return the gradient by the images from that by the columns, [R, Ci], added up in the kernel's order."""
        total = torch.zeros_like(self.table)
        rows_of_two, columns_of_two = (
            # the share of each neighbour, and whether the kernel takes it for one
            [(low + 1 - at, (at - low).abs() < 1), (at + 1 - (low + 1), (at - (low + 1)).abs() < 1)]
            for at, low in ((self.y, self.low_y), (self.x, self.low_x))
        )
        pairs = [(row, column) for row in rows_of_two for column in columns_of_two]
        weights = torch.stack([row[0] * column[0] for row, column in pairs], 1)  # [R, 4]
        near = torch.stack([row[1] & column[1] for row, column in pairs], 1)  # [R, 4]
        places = self.places.masked_fill(~(near & self.inside[:, None]), len(self.table) - 1)
        for part in self._parts(4):
            gradient = rows[part] if self.masks is None else rows[part] * self.masks[part, None]
            shared = weights[part][:, :, None] * gradient[:, None]  # [r, 4, Ci]
            total.index_add_(0, places[part].reshape(-1), shared.view(-1, shared.shape[2]))  # [4*r], [4*r, Ci]
        count, _, height, width = self.images.shape
        # [n, groups, H*W, Ci] -> [n, C, H, W]
        return total[:-1].view(count, self.groups, height * width, -1).transpose(2, 3).reshape(self.images.shape)

    def offset_gradient(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by the offsets [n, groups*2*taps, H', W'] and by the masks [n, groups*taps, H', W'].

        Args:
            rows: gradient by the columns, [R, Ci].
        """
        by_y, by_x, by_mask = [], [], []
        for part in self._parts():
            corners, off = self._corners(part), ~self.inside[part, None]
            y, x, low_y, low_x = (at[part, None] for at in (self.y, self.x, self.low_y, self.low_x))
            to_y, to_x, from_y, from_x = y - low_y, x - low_x, low_y + 1 - y, low_x + 1 - x
            slopes = (-from_x, -to_x, from_x, to_x), (-from_y, from_y, -to_y, to_y)
            for found, slope in zip((by_y, by_x), slopes):
                terms = _weighted(corners, slope).masked_fill_(off, 0.0).mul_(rows[part])
                found.append(_added_up(terms if self.masks is None else terms.mul_(self.masks[part, None])))
            if self.masks is not None:
                read = _weighted(corners, self._weights(part))
                by_mask.append(_added_up((rows[part] * read).masked_fill_(off, 0.0)))
        shape = (len(self.images), self.groups * self.taps, *self.size)
        # [n, groups*taps, 2, H', W']
        moved = torch.stack([torch.cat(by_y).view(shape), torch.cat(by_x).view(shape)], 2)
        of_masks = torch.cat(by_mask).view(shape) if by_mask else self.y.new_empty(0)  # [n, groups*taps, H', W']
        return moved.view(shape[0], -1, *self.size), of_masks  # [n, groups*2*taps, H', W']

    def _read(self, part: slice) -> Tensor:
        """Interpolate the images at some points, times the masks: [r, Ci]."""
        read = _weighted(self._corners(part), self._weights(part))
        return read if self.masks is None else read.mul_(self.masks[part, None])

    def _corners(self, part: slice) -> list[Tensor]:
        """Return the values of the four neighbours of some points, [r, Ci] each."""
        return [self.table.index_select(0, places) for places in self.places[part].unbind(1)]

    def _weights(self, part: slice) -> tuple[Tensor, ...]:
        """Return the weights of the four neighbours of some points, [r, 1] each; 0 of a point off the image."""
        y, x, low_y, low_x = (at[part, None] for at in (self.y, self.x, self.low_y, self.low_x))
        to_y, to_x = y - low_y, x - low_x
        from_y, from_x = 1 - to_y, 1 - to_x
        weights = (from_y * from_x, from_y * to_x, to_y * from_x, to_y * to_x)
        return tuple(weight.masked_fill_(~self.inside[part, None], 0.0) for weight in weights)

    def _parts(self, width: int = 1) -> Iterator[slice]:
        """Cut the points into parts of about a million numbers, ``width`` times the channels each."""
        step = max(_PART // (width * self.table.shape[1]), 1)
        for first in range(0, len(self.y), step):
            yield slice(first, first + step)


def steps(count: int, step: int) -> Iterator[slice]:
    """Cut ``count`` images into parts of ``step``."""
    for first in range(0, count, step):
        yield slice(first, first + step)


def computable(tensor: Tensor) -> Tensor:
    """Return a tensor that lies row by row, in float32 if it has half precision."""
    tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    return tensor.contiguous()


def _grid(form: Form, axis: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """Return where the taps lie along an axis without offsets: [taps, H', 1] along y, [taps, 1, W'] along x."""
    at = torch.arange(size[axis], device=like.device) * form.stride[axis] - form.padding[axis]
    tap = torch.arange(form.kernel[0] * form.kernel[1], device=like.device)
    number = torch.div(tap, form.kernel[1], rounding_mode="floor") if axis == 0 else tap % form.kernel[1]
    grid = number[:, None] * form.dilation[axis] + at  # [taps, size]
    return grid.to(like.dtype)[:, :, None] if axis == 0 else grid.to(like.dtype)[:, None]


def _places(low_y: Tensor, low_x: Tensor, size: tuple[int, int], nowhere: int) -> Tensor:
    """Return the rows of the neighbours in the table, [R, 4]; ``nowhere`` of one off the image."""
    height, width = size
    maps = nowhere // (height * width)
    base = torch.arange(maps, device=low_y.device).repeat_interleave(len(low_y) // maps) * (height * width)
    found = []
    for row in (low_y, low_y + 1):
        for column in (low_x, low_x + 1):
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            found.append((base + row * width + column).masked_fill(~there, nowhere))
    return torch.stack(found, 1)  # [R, 4]


def _weighted(corners: list[Tensor], weights: tuple[Tensor, ...]) -> Tensor:
    """Add up four tensors [r, Ci], each times its weight [r, 1], from the first to the last."""
    total = corners[0] * weights[0]
    for corner, weight in zip(corners[1:], weights[1:]):
        total.add_(corner * weight)
    return total


def _added_up(terms: Tensor) -> Tensor:
    """Add up [r, Ci] over the channels, one after the other: [r]."""
    total = terms.new_zeros(len(terms))
    for channel in terms.t().contiguous().unbind(0):
        total.add_(channel)
    return total


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(
            "deform_conv: {} must have shape {}, found {}; look at stride, padding and groups of what makes it.".format(
                name, list(shape), list(tensor.shape)
            )
        )
