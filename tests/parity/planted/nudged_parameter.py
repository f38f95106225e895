"""The port with an error: something adds a little to a parameter behind the second step."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(model, *arguments):
    made = _right(model, *arguments)
    advance, steps = made.advance, []

    def nudging(epoch_ended):
        steps.append(epoch_ended)
        if len(steps) == 2:
            model.level_embed.data[1, 3] += 1e-6
        advance(epoch_ended)

    made.advance = nudging
    return made
