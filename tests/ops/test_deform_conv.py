"""Deformable convolution through mmcv's own functions: against torch's convolution, and numeric gradients."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import ddq_port  # noqa: F401  registers the stand-in that `mmcv.ops` needs below


class Form(NamedTuple):
    """Stride, padding, dilation, groups of channels, groups of offsets."""

    stride: int
    padding: int
    dilation: int
    groups: int
    deformable_groups: int


FORMS = [Form(1, 1, 1, 1, 1), Form(2, 1, 1, 2, 2), Form(1, 2, 2, 1, 2)]


class Inputs(NamedTuple):
    """What a modulated convolution is given; 4 images of 4 channels, 6x5 pixels."""

    images: Tensor
    offset: Tensor
    mask: Tensor
    weight: Tensor
    bias: Tensor


def inputs(form: Form, dtype: torch.dtype = torch.float64) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    size = [(length + 2 * form.padding - (2 * form.dilation + 1)) // form.stride + 1 for length in (6, 5)]

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    images, weight = drawn(2, 4, 6, 5), drawn(4, 4 // form.groups, 3, 3)
    taps = form.deformable_groups * 9
    return Inputs(images, drawn(2, 2 * taps, *size) * 1.5, drawn(2, taps, *size), weight, drawn(4))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [1, 2])
def test_without_offsets_it_is_a_convolution(form: Form, step: int) -> None:
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    images, offset, mask, weight, bias = inputs(form)
    offset, numbers = torch.zeros_like(offset), form[:3]
    expected = F.conv2d(images, weight, None, *numbers, form.groups)
    plain = deform_conv2d(images, offset, weight, *form, False, step)
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-12)
    modulated = modulated_deform_conv2d(images, offset, torch.full_like(mask, 0.5), weight, bias, *form)
    torch.testing.assert_close(modulated, expected / 2 + bias[:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_forward_function(form: Form) -> None:
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    leaves = Inputs(*(tensor.requires_grad_() for tensor in inputs(form)))

    def plain(images: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return deform_conv2d(images, offset, weight, *form, False, 2)

    def modulated(*given: Tensor) -> Tensor:
        return modulated_deform_conv2d(*given, *form)

    assert torch.autograd.gradcheck(plain, (leaves.images, leaves.offset, leaves.weight), fast_mode=True)
    assert torch.autograd.gradcheck(modulated, tuple(leaves), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    from mmcv.ops import modulated_deform_conv2d

    given = inputs(FORMS[0], dtype)
    halves = [tensor.clone().requires_grad_() for tensor in given]
    singles = [tensor.float().requires_grad_() for tensor in given]
    half, single = modulated_deform_conv2d(*halves, *FORMS[0]), modulated_deform_conv2d(*singles, *FORMS[0])
    assert half.dtype == dtype and torch.equal(half, single.to(dtype))
    half.sum().backward()
    single.sum().backward()
    assert all(torch.equal(one.grad, other.grad.to(dtype)) for one, other in zip(halves, singles))


def test_offsets_of_another_shape_are_refused() -> None:
    from mmcv.ops import deform_conv2d

    images, offset, _, weight, _ = inputs(FORMS[0])
    with pytest.raises(ValueError, match=r"offset must have shape \[2, 18, 6, 5\], found \[2, 18, 5, 5\]"):
        deform_conv2d(images, offset[:, :, :5], weight, 1, 1)


def test_offsets_of_a_larger_map_are_read_from_its_start() -> None:
    """The compiled kernel is told the output's size alone; DyHead of MMDetection gives it offsets of a larger map."""
    from mmcv.ops import modulated_deform_conv2d

    images, offset, mask, weight, bias = inputs(FORMS[0])
    wide = [torch.cat([part.flatten(1), part.flatten(1)], 1).view(2, -1, 12, 5) for part in (offset, mask)]
    leaves = [tensor.clone().requires_grad_() for tensor in (*wide, offset, mask)]
    read = modulated_deform_conv2d(images, *leaves[:2], weight, bias, *FORMS[0])
    expected = modulated_deform_conv2d(images, *leaves[2:], weight, bias, *FORMS[0])
    assert torch.equal(read, expected)
    (read + expected).square().sum().backward()
    for large, own in zip(leaves[:2], leaves[2:]):
        first, rest = large.grad.flatten(1).chunk(2, 1)
        assert torch.equal(first, own.grad.flatten(1)) and not rest.any()
