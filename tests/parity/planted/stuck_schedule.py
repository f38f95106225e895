"""The port with an error: schedulers are not advanced behind the second step."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(*arguments):
    made = _right(*arguments)
    advance, steps = made.advance, []

    def stuck(epoch_ended):
        steps.append(epoch_ended)
        if len(steps) != 2:
            advance(epoch_ended)

    made.advance = stuck
    return made
