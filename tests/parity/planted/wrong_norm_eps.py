"""The port with an error: the decoder's final LayerNorm has eps 1e-6 instead of 1e-5."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    model.decoder.norm.eps = 1e-6
    return model
