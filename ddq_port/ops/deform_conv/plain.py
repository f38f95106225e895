"""Deformable convolution without masks, under the names of mmcv's C++ bindings."""

from __future__ import annotations

import torch
from torch import Tensor

from .field import Field, Form, computable, steps


@torch.no_grad()
def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, kW: int, kH: int,
    dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int, group: int, deformable_group: int,
    im2col_step: int,
) -> None:  # fmt: skip
    """Write the deformable convolution of ``input`` into ``output``, in place.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kH, kW].
        offset: [B, deformable_group * 2 * kH * kW, H', W'] as (dy, dx) of each tap, in pixels.
        output: buffer [B, C', H', W'], overwritten.
        columns: not used; the compiled operator makes its own, too.
        ones: not used.
        kW: width of the kernel.
        kH: height of the kernel.
        dW: stride along x.
        dH: stride along y.
        padW: padding along x.
        padH: padding along y.
        dilationW: dilation along x.
        dilationH: dilation along y.
        group: groups of channels of the convolution.
        deformable_group: groups of channels with offsets of their own.
        im2col_step: images per matrix product, on whose shape the rounding depends; divides B.

    Raises:
        ValueError: if the offsets have another shape.
    """
    form = Form((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    images, offsets, kernel = computable(input), computable(offset), computable(weight)
    for chosen in steps(len(images), im2col_step):
        field = Field.of(form, images[chosen], offsets[chosen])
        result = form.product(kernel, field.columns())  # [C', n*H'*W']
        result = result.view(len(kernel), -1, *field.size).transpose(0, 1)  # [n, C', H', W']
        output[chosen] = result.to(output.dtype)


@torch.no_grad()
def deform_conv_backward_input(
    input: Tensor, offset: Tensor, gradOutput: Tensor, gradInput: Tensor, gradOffset: Tensor, weight: Tensor,
    columns: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int,
    group: int, deformable_group: int, im2col_step: int,
) -> None:  # fmt: skip
    """Write the gradients by input and offsets into ``gradInput`` and ``gradOffset``, in place.

    Args:
        input: as in :func:`deform_conv_forward`, like all arguments that are not told here.
        gradOutput: [B, C', H', W'].
        gradInput: buffer of the shape of ``input``, overwritten; mmcv gives zeros.
        gradOffset: buffer of the shape of ``offset``, overwritten.
        columns: not used.

    Raises:
        ValueError: as there.
    """
    form = Form((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    images, offsets, kernel, gradient = (computable(tensor) for tensor in (input, offset, weight, gradOutput))
    for chosen in steps(len(images), im2col_step):
        field = Field.of(form, images[chosen], offsets[chosen])
        rows = field.rows_of(form.transposed_product(kernel, gradient[chosen]))  # [R, Ci]
        gradOffset[chosen] = field.offset_gradient(rows)[0].to(gradOffset.dtype)
        gradInput[chosen] = field.image_gradient(rows).to(gradInput.dtype)


@torch.no_grad()
def deform_conv_backward_parameters(
    input: Tensor, offset: Tensor, gradOutput: Tensor, gradWeight: Tensor, columns: Tensor, ones: Tensor, kW: int,
    kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int, dilationH: int, group: int,
    deformable_group: int, scale: float, im2col_step: int,
) -> None:  # fmt: skip
    """Add the gradient by the weight, times ``scale``, to ``gradWeight``, in place.

    Args:
        input: as in :func:`deform_conv_forward`, like all arguments that are not told here.
        gradOutput: [B, C', H', W'].
        gradWeight: buffer of the shape of ``weight``.
        columns: not used.
        ones: not used.
        scale: factor.

    Raises:
        ValueError: as there.
    """
    form = Form((kH, kW), (dH, dW), (padH, padW), (dilationH, dilationW), group, deformable_group)
    images, offsets, gradient = (computable(tensor) for tensor in (input, offset, gradOutput))
    total = computable(gradWeight).clone()
    for chosen in steps(len(images), im2col_step):
        field = Field.of(form, images[chosen], offsets[chosen])
        form.add_weight_gradient(total, gradient[chosen], field.columns(), scale)
    gradWeight.copy_(total)
