"""Content-aware reassembly of features (CARAFE), in plain torch: what mmcv's compiled operators do on a GPU.

Names, argument names and argument order are those of the C++ bindings of mmcv 1.4.7 to 2.1.0, which are alike. Each
pixel of the enlarged map is a weighted sum over the neighbourhood of the pixel it comes from, with weights of its own.
Neighbours are added up row by row, as the compiled kernel does.
"""

from __future__ import annotations

from typing import Iterator, Tuple

import torch
from torch import Tensor

__all__ = ["carafe_backward", "carafe_forward"]


@torch.no_grad()
def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor,
    kernel_size: int, group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """Write the enlarged map into ``output``.

    Args:
        features: [n, C, h, w].
        masks: [n, group_size * kernel_size ** 2, h * scale_factor, w * scale_factor], the weights.
        rfeatures: buffer of the shape of ``features``, is overwritten with them: the backward pass is given it.
        routput: not used.
        rmasks: not used.
        output: [n, C, h * scale_factor, w * scale_factor], is overwritten.
        kernel_size: height and width of a neighbourhood, odd.
        group_size: groups of channels that have weights of their own; divides C.
        scale_factor: how many times the map is enlarged along each side.
    """
    rfeatures.copy_(features)
    output.zero_()
    weights = _by_group(masks, group_size)
    for tap, rows, columns in _taps(features, kernel_size):
        near = _enlarged(_padded(features, kernel_size)[:, :, rows, columns], scale_factor)  # [n, C, H, W]
        output += near * _of_channels(weights[:, :, tap], near)


@torch.no_grad()
def carafe_backward(
    grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor, rgrad_input_hs: Tensor,
    rgrad_input: Tensor, rgrad_masks: Tensor, grad_input: Tensor, grad_masks: Tensor, kernel_size: int,
    group_size: int, scale_factor: int,
) -> None:  # fmt: skip
    """Write the gradients by features and weights into ``grad_input`` and ``grad_masks``.

    Args:
        grad_output: [n, C, H, W], with H = h * scale_factor and W = w * scale_factor.
        rfeatures: [n, C, h, w], as :func:`carafe_forward` left it.
        masks: as there, like the last three arguments.
        rgrad_output: not used.
        rgrad_input_hs: not used.
        rgrad_input: not used.
        rgrad_masks: not used.
        grad_input: [n, C, h, w], is overwritten.
        grad_masks: of the shape of ``masks``, is overwritten.
        kernel_size: see there.
        group_size: see there.
        scale_factor: see there.
    """
    count, channels, height, width = rfeatures.shape
    weights, by_weight = _by_group(masks, group_size), _by_group(grad_masks, group_size)
    padded = torch.zeros_like(_padded(rfeatures, kernel_size))  # [n, C, h + k - 1, w + k - 1]
    for tap, rows, columns in _taps(rfeatures, kernel_size):
        near = _enlarged(_padded(rfeatures, kernel_size)[:, :, rows, columns], scale_factor)  # [n, C, H, W]
        # [n, groups, C / groups, H, W]
        terms = (grad_output * near).view(count, group_size, -1, *grad_output.shape[2:])
        by_weight[:, :, tap] = terms.sum(2)  # [n, groups, H, W]
        back = grad_output * _of_channels(weights[:, :, tap], near)
        # [n, C, h, s, w, s]
        blocks = back.view(count, channels, height, scale_factor, width, scale_factor)
        padded[:, :, rows, columns] += blocks.sum((3, 5))  # [n, C, h, w]
    edge = kernel_size // 2
    grad_input.copy_(padded[:, :, edge : edge + height, edge : edge + width])


def _taps(features: Tensor, kernel: int) -> Iterator[Tuple[int, slice, slice]]:
    """Yield the number of each neighbour, and where it lies for all pixels of a map with a border."""
    height, width = features.shape[2:]
    for tap in range(kernel * kernel):
        y, x = divmod(tap, kernel)
        yield tap, slice(y, y + height), slice(x, x + width)


def _padded(features: Tensor, kernel: int) -> Tensor:
    """Return a map with a border of zeros, half as wide as a neighbourhood."""
    return torch.nn.functional.pad(features, [kernel // 2] * 4)


def _enlarged(features: Tensor, scale: int) -> Tensor:
    """Repeat every pixel: [n, C, h, w] -> [n, C, h * scale, w * scale]."""
    return features.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def _by_group(masks: Tensor, groups: int) -> Tensor:
    """Return weights in the same memory as [n, groups, taps, H, W]."""
    return masks.view(len(masks), groups, -1, *masks.shape[2:])  # [n, groups * taps, H, W] -> [n, groups, taps, H, W]


def _of_channels(weight: Tensor, features: Tensor) -> Tensor:
    """Give each channel the weight of its group: [n, groups, H, W] -> [n, C, H, W]."""
    return weight.repeat_interleave(features.size(1) // weight.size(1), 1)
