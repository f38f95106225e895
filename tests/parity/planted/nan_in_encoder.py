"""The port with one feed-forward block of the encoder that gives NaN."""

from functools import wraps

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    block = model.encoder.layers[1].ffn
    right = block.forward
    block.forward = wraps(right)(lambda *args, **kwargs: right(*args, **kwargs) * float("nan"))
    return model
