"""Convolution at the cells of a mask is that of the whole image there, and zero elsewhere."""

from __future__ import annotations

import pytest
import torch

import ddq_port.ops.standin


@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), (1, 1)), ((1, 3), (0, 1)), ((3, 1), (1, 0))])
def test_cells_of_a_mask_are_convolved_alone(kernel, padding):
    ddq_port.ops.standin.install()
    from mmcv.ops import MaskedConv2d

    torch.manual_seed(0)
    conv = MaskedConv2d(4, 6, kernel, padding=padding)
    features, mask = torch.randn(1, 4, 5, 7), torch.rand(1, 5, 7) > 0.5
    expected = torch.nn.functional.conv2d(features, conv.weight, conv.bias, padding=padding) * mask
    assert torch.allclose(conv(features, mask), expected, atol=1e-6)
    assert not conv(features, torch.zeros_like(mask)).any()
