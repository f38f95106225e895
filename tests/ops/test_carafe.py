"""CARAFE sums the neighbourhood of each pixel with weights of its own, and has the gradients of that."""

from __future__ import annotations

import torch

import ddq_port.ops.standin


def test_pixels_are_weighted_sums_of_neighbourhoods_and_have_their_gradients():
    ddq_port.ops.standin.install()
    from mmcv.ops import carafe

    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(2, 2 * 9, 6, 10, dtype=torch.float64, requires_grad=True)
    near = torch.nn.functional.unfold(features, 3, padding=1)  # [2, 4 * 9, 15]
    near = near.view(2, 2, 2, 9, 3, 1, 5, 1)  # groups, channels of each, neighbours, h, w
    expected = (near * masks.view(2, 2, 1, 9, 3, 2, 5, 2)).sum(3).reshape(2, 4, 6, 10)
    found = carafe(features, masks, 3, 2, 2)
    assert torch.allclose(found, expected)
    along = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(made, (features, masks), along, retain_graph=True) for made in (found, expected))
    assert all(map(torch.allclose, ours, theirs))
