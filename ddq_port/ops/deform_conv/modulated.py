"""Deformable convolution with masks, called modulated, under the names of mmcv's C++ bindings.

The compiled kernel is told the size of its output only. It reads offsets and masks of a larger map number by number from
where those of an image begin, as if they were of the output's size, and so does this. DyHead of MMDetection gives it such.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .field import Field, Form, computable, steps


@torch.no_grad()
def modulated_deform_conv_forward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, output: Tensor,
    columns: Tensor, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
    dilation_h: int, dilation_w: int, group: int, deformable_group: int, with_bias: bool,
) -> None:  # fmt: skip
    """Write the modulated deformable convolution of ``input`` into ``output``, in place.

    Args:
        input: [B, C, H, W].
        weight: [C', C / group, kernel_h, kernel_w].
        bias: [C'], not used without ``with_bias``.
        ones: not used; the compiled operator makes its own, too.
        offset: [B, deformable_group * 2 * kernel_h * kernel_w, H', W'] as (dy, dx) of each tap, in pixels; or of a
            larger map.
        mask: [B, deformable_group * kernel_h * kernel_w, H', W'], factors of what is read; or of a larger map.
        output: buffer [B, C', H', W'], overwritten.
        columns: not used.
        kernel_h: height of the kernel.
        kernel_w: width of the kernel.
        stride_h: stride along y.
        stride_w: stride along x.
        pad_h: padding along y.
        pad_w: padding along x.
        dilation_h: dilation along y.
        dilation_w: dilation along x.
        group: groups of channels of the convolution.
        deformable_group: groups of channels with offsets of their own.
        with_bias: add ``bias``.

    Raises:
        ValueError: if offsets or masks have another shape that is not of a larger map.
    """
    form = Form(
        (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    )
    images, offsets, masks, kernel = (computable(tensor) for tensor in (input, offset, mask, weight))
    offsets, masks = (_of_output(tensor, form, images) for tensor in (offsets, masks))
    for chosen in steps(len(images), 1):
        field = Field.of(form, images[chosen], offsets[chosen], masks[chosen])
        result = form.product(kernel, field.columns()).view(len(kernel), *field.size)  # [C', H', W']
        if with_bias:
            result += computable(bias).view(-1, 1, 1)  # [C', 1, 1]
        output[chosen] = result[None].to(output.dtype)


@torch.no_grad()
def modulated_deform_conv_backward(
    input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor, columns: Tensor,
    grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor,
    grad_output: Tensor, kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int, pad_w: int,
    dilation_h: int, dilation_w: int, group: int, deformable_group: int, with_bias: bool,
) -> None:  # fmt: skip
    """Write the gradients of :func:`modulated_deform_conv_forward` into the five ``grad_*`` buffers, in place.

    Args:
        input: as in the forward function, like all arguments that are not told here.
        bias: not used.
        ones: not used.
        columns: not used.
        grad_input: buffer of the shape of ``input``, overwritten; mmcv gives zeros.
        grad_weight: buffer of the shape of ``weight``, to which is added.
        grad_bias: buffer of the shape of ``bias``, to which is added; not used without ``with_bias``.
        grad_offset: buffer of the shape of ``offset``, overwritten; what was not read keeps its zeros.
        grad_mask: buffer of the shape of ``mask``, as ``grad_offset``.
        grad_output: [B, C', H', W'].

    Raises:
        ValueError: as there.
    """
    form = Form(
        (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    )
    images, offsets, masks, kernel = (computable(tensor) for tensor in (input, offset, mask, weight))
    offsets, masks = (_of_output(tensor, form, images) for tensor in (offsets, masks))
    gradient, weight_total, bias_total = (computable(part) for part in (grad_output, grad_weight, grad_bias))
    weight_total, bias_total = weight_total.clone(), bias_total.clone()
    for chosen in steps(len(images), 1):
        field = Field.of(form, images[chosen], offsets[chosen], masks[chosen])
        rows = field.rows_of(form.transposed_product(kernel, gradient[chosen]))  # [R, Ci]
        by_offset, by_mask = field.offset_gradient(rows)
        for buffer, made in ((grad_offset[chosen], by_offset), (grad_mask[chosen], by_mask)):
            numbers = made.to(buffer.dtype).flatten(1)  # [1, deformable_group * (2 *) taps * H' * W']
            buffer.view(1, -1)[:, : numbers.shape[1]] = numbers
        grad_input[chosen] = field.image_gradient(rows).to(grad_input.dtype)
        form.add_weight_gradient(weight_total, gradient[chosen], field.columns(), 1.0)
        if with_bias:
            form.add_bias_gradient(bias_total, gradient[chosen])
    grad_weight.copy_(weight_total)
    if with_bias:
        grad_bias.copy_(bias_total)


def _of_output(tensor: Tensor, form: Form, images: Tensor) -> Tensor:
    """Return offsets or masks as the kernel reads them, [B, planes, H', W']; what is not of a larger map stays as it is."""
    size = form.output_size((images.shape[2], images.shape[3]))
    numbers = tensor.flatten(1)  # [B, planes * H * W]
    needed = tensor.shape[1] * size[0] * size[1]
    if numbers.shape[1] <= needed:
        return tensor
    return numbers[:, :needed].reshape(len(tensor), -1, *size)  # [B, planes * H' * W'] -> [B, planes, H', W']
