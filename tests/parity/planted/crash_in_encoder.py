"""The port with an encoder layer that raises an error; nothing differs before."""

from functools import wraps

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    norm = model.encoder.layers[1].norms[0]

    @wraps(norm.forward)
    def forward(*args, **kwargs):
        raise RuntimeError("Sizes do not fit:\n\n  expected 64")

    norm.forward = forward
    return model
