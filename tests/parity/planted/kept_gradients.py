"""The port with an error: gradients are not cleared between steps."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(*arguments):
    made = _right(*arguments)
    made.wrapper.zero_grad = lambda **_: None
    return made
