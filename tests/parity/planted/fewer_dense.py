"""The port with an error: it asks for 6 dense queries instead of 90."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    model.dense_topk_ratio = 0.1
    return model
