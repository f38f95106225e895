"""The port with an error: the optimizer forgets a parameter's average gradient behind the second step."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(model, *arguments):
    made = _right(model, *arguments)
    advance, steps = made.advance, []

    def forgetting(epoch_ended):
        steps.append(epoch_ended)
        if len(steps) == 2:
            made.optimizer.state[model.query_map.bias]["exp_avg"].zero_()
        advance(epoch_ended)

    made.advance = forgetting
    return made
