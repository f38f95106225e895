"""The continuous operators of mmcv's compiled extension, in plain torch, under mmcv's own names.

Names, argument names and argument order are those of the C++ bindings (github ``open-mmlab/mmcv`` v2.1.0,
``mmcv/ops/csrc/pytorch/pybind.cpp``). All of them run on CPU and CUDA tensors. float16 and bfloat16 are computed in
float32 and rounded once at the end, where the compiled kernels round at each step.

Two implementations of these would round otherwise and no bit could be compared. So this one file serves both sides of a
comparison: the legacy side loads it by its path, without the package it lies in. It therefore imports torch only and is
written for Python 3.8; what both sides execute is named in the verdict. Discrete operators do not belong here: of
those the legacy side has its own, in ``legacy_adapters/standin``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ms_deform_attn_backward",
    "ms_deform_attn_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
]

_FLT_MIN = 1.1754943508222875e-38
"""Smallest normal float32, the kernels' floor under a logarithm."""


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Compute multi-scale deformable attention.

    The operations are those of ``mmcv/ops/multi_scale_deform_attn.py::multi_scale_deformable_attn_pytorch`` in the same
    order, so on one device the result equals it bit for bit.

    Args:
        value: [bs, num_keys, num_heads, channels], the levels one after another along num_keys.
        value_spatial_shapes: int64 [num_levels, 2] as (height, width).
        value_level_start_index: int64 [num_levels]; implied by the shapes, so not read.
        sampling_locations: [bs, num_queries, num_heads, num_levels, num_points, 2] as (x, y); [0, 1] is the image.
        attention_weights: [bs, num_queries, num_heads, num_levels, num_points].
        im2col_step: images per kernel launch of the compiled operator; not read.

    Returns:
        [bs, num_queries, num_heads * channels] in the dtype of ``value``.
    """
    inputs = (value, sampling_locations, attention_weights)
    with torch.no_grad():
        output = _deformable_attention(*(_computable(t) for t in inputs), shapes=value_spatial_shapes.tolist())
    return output.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`ms_deform_attn_forward` into the three ``grad_*`` buffers, in place.

    The forward pass is computed again and differentiated by autograd.

    Args:
        value: as in the forward function, like the four tensors and the number below.
        value_spatial_shapes: int64 [num_levels, 2].
        value_level_start_index: not read.
        sampling_locations: as in the forward function.
        attention_weights: as in the forward function.
        grad_output: [bs, num_queries, num_heads * channels].
        grad_value: buffer of the shape of ``value``, overwritten.
        grad_sampling_loc: buffer of the shape of ``sampling_locations``, overwritten.
        grad_attn_weight: buffer of the shape of ``attention_weights``, overwritten.
        im2col_step: not read.
    """
    leaves = [_computable(t.detach()).requires_grad_() for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _deformable_attention(*leaves, shapes=value_spatial_shapes.tolist())
    gradients = torch.autograd.grad(output, leaves, grad_output.detach().to(output.dtype))
    for buffer, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients):
        buffer.copy_(gradient)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the sigmoid focal loss of every logit into ``output``, in place.

    Formula of ``mmcv/ops/csrc/common/cuda/sigmoid_focal_loss_cuda_kernel.cuh``: logarithms are taken of
    ``max(p, FLT_MIN)`` and ``max(1 - p, FLT_MIN)``, so where ``p`` rounds to 1 (float32 logits above about 17) the loss
    of a negative jumps to the floor of 87.3, unlike the pure-torch loss of mmdet. float64 is computed throughout in
    float64 (the kernel has a float32 exponential).

    Args:
        input: logits, [N, C].
        target: int64 [N], a class in [0, C), or C for background.
        weight: [C], a factor per target class, or an empty tensor for none.
        output: buffer [N, C], overwritten.
        gamma: focusing exponent, at least 0.
        alpha: weight of positives; negatives have ``1 - alpha``.

    Raises:
        ValueError: if ``weight`` is given and a target lies outside [0, C).
    """
    positive, p, log_p, q, log_q = _focal_terms(input, target)
    loss = torch.where(positive, -alpha * (q.pow(gamma) * log_p), -(1 - alpha) * (p.pow(gamma) * log_q))  # [N, C]
    output.copy_(_class_weighted(loss, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each element of the focal loss by its logit into ``grad_input``, in place.

    Args:
        input: logits, [N, C].
        target: int64 [N], as in :func:`sigmoid_focal_loss_forward`.
        weight: [C] or empty.
        grad_input: buffer [N, C], overwritten.
        gamma: focusing exponent, at least 0.
        alpha: weight of positives.

    Raises:
        ValueError: if ``weight`` is given and a target lies outside [0, C).
    """
    positive, p, log_p, q, log_q = _focal_terms(input, target)
    of_positive = q.pow(gamma) * (q - gamma * p * log_p)
    of_negative = p.pow(gamma) * (gamma * q * log_q - p)
    gradient = torch.where(positive, -alpha * of_positive, -(1 - alpha) * of_negative)  # [N, C]
    grad_input.copy_(_class_weighted(gradient, target, weight))


def _computable(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _deformable_attention(value: Tensor, locations: Tensor, weights: Tensor, shapes: list[list[int]]) -> Tensor:
    bs, _, num_heads, channels = value.shape
    num_queries, num_levels, num_points = locations.shape[1], locations.shape[3], locations.shape[4]
    grids = 2 * locations - 1  # [0, 1] -> [-1, 1] of grid_sample
    sampled = []
    for level, part in enumerate(value.split([height * width for height, width in shapes], dim=1)):
        # [bs, h*w, heads, channels] -> [bs*heads, channels, h, w]
        feature = part.flatten(2).transpose(1, 2).reshape(bs * num_heads, channels, *shapes[level])
        # [bs, queries, heads, points, 2] -> [bs*heads, queries, points, 2]
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        # [bs*heads, channels, queries, points]
        sampled.append(F.grid_sample(feature, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    # [bs, queries, heads, levels, points] -> [bs*heads, 1, queries, levels*points]
    flat_weights = weights.transpose(1, 2).reshape(bs * num_heads, 1, num_queries, num_levels * num_points)
    # [bs*heads, channels, queries, levels, points] -> [..., levels*points] -> [bs*heads, channels, queries]
    output = (torch.stack(sampled, dim=-2).flatten(-2) * flat_weights).sum(-1)
    output = output.view(bs, num_heads * channels, num_queries)  # [bs, heads*channels, queries]
    return output.transpose(1, 2).contiguous()  # [bs, queries, heads*channels]


def _focal_terms(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return (positive mask, p, log p, 1 - p, log(1 - p)), each [N, C]."""
    logits = _computable(logits.detach())
    classes = torch.arange(logits.shape[1], device=logits.device)
    positive = target[:, None] == classes  # [N, C]
    p = 1 / (1 + torch.exp(-logits))
    q = 1 - p
    return positive, p, p.clamp(min=_FLT_MIN).log(), q, q.clamp(min=_FLT_MIN).log()


def _class_weighted(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() == 0:
        return values
    if target.numel() and (int(target.min()) < 0 or int(target.max()) >= weight.numel()):
        raise ValueError(
            f"sigmoid_focal_loss: with class weights every target must lie in [0, {weight.numel()}), found "
            f"{int(target.min())} to {int(target.max())}; drop the weights or the background targets."
        )
    return values * weight.to(values.dtype)[target][:, None]
