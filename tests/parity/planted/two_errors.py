"""The port with two errors far apart: an encoder norm with another eps, and a branch whose gradient is doubled."""

import torch

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def build(options, device):
    model = right_build(options, device)
    model.encoder.layers[1].norms[0].eps = 1e-4
    branch = model.bbox_head.reg_branches[1][2]
    right = branch.forward
    branch.forward = lambda x: _Doubled.apply(right(x))
    return model
