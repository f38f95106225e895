"""The port with an error: AdamW averages squares over 100 steps instead of 1000."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(*arguments):
    made = _right(*arguments)
    for group in made.optimizer.param_groups:
        group["betas"] = (0.9, 0.99)
    return made
