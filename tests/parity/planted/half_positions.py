"""The port with an error that only autocast shows: positions are encoded in half precision and handed on in float32."""

import torch

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    encoding = model.positional_encoding
    right = encoding.forward

    def forward(mask, *args, **kwargs):
        positions = right(mask, *args, **kwargs)
        kind = positions.device.type
        if not torch.is_autocast_enabled(kind):
            return positions
        return positions.to(torch.get_autocast_dtype(kind)).to(positions.dtype)

    encoding.forward = forward
    return model
