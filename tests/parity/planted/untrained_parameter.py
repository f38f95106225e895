"""The port with an error: the optimizer is not given one parameter."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(model, *arguments):
    model.level_embed.requires_grad_(False)
    made = _right(model, *arguments)
    model.level_embed.requires_grad_(True)
    return made
