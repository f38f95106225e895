"""The port with an error: it adds to a parameter in training."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    forward = model.forward_transformer

    def changing(*args, **kwargs):
        result = forward(*args, **kwargs)
        if model.training:
            model.level_embed.data.add_(1.0)
        return result

    model.forward_transformer = changing
    return model
