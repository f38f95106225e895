"""Seeds torch's generator anew, with a literal, in the forward of the backbone."""

import torch

from parity.adapters import ddq_port as right
from parity.adapters.ddq_port import *  # noqa: F403


def build(options, device):
    model = right.build(options, device)
    forward = model.backbone.forward

    def reseeding(x):
        torch.manual_seed(0)
        return forward(x)

    model.backbone.forward = reseeding
    return model
