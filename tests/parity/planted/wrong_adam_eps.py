"""The port with an error: AdamW has eps 1e-7 instead of 1e-8."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(*arguments):
    made = _right(*arguments)
    for group in made.optimizer.param_groups:
        group["eps"] = 1e-7
    return made
