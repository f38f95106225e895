"""Convolution at the cells of a mask only, in plain torch: what mmcv's compiled operators do on a GPU.

Names, argument names and argument order are those of the C++ bindings of mmcv 1.4.7 to 2.1.0, which are alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["masked_col2im_forward", "masked_im2col_forward"]


def masked_im2col_forward(
    im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int, kernel_w: int, pad_h: int, pad_w: int
) -> None:
    """Write the neighbourhoods of some cells into ``col``.

    Args:
        im: [1, C, H, W] features.
        mask_h_idx: [n] rows of the cells.
        mask_w_idx: [n] columns of the cells.
        col: [C * kernel_h * kernel_w, n], is written.
        kernel_h: height of a neighbourhood.
        kernel_w: width of it.
        pad_h: rows of zeros above and below.
        pad_w: columns of zeros on the left and on the right.
    """
    whole = torch.nn.functional.unfold(im, (kernel_h, kernel_w), padding=(pad_h, pad_w))[0]  # [C * kh * kw, h * w]
    width = im.size(3) + 2 * pad_w - kernel_w + 1
    col.copy_(whole[:, mask_h_idx * width + mask_w_idx])  # [C * kh * kw, n]


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the values of some cells into ``im``; the others are left as they are.

    Args:
        col: [channels, n] values.
        mask_h_idx: [n] rows of the cells.
        mask_w_idx: [n] columns of the cells.
        im: [1, channels, height, width], is written.
        height: of ``im``.
        width: of ``im``.
        channels: of both.
    """
    im.view(channels, height, width)[:, mask_h_idx, mask_w_idx] = col  # [channels, n]
