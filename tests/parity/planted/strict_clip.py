"""The port with clipping that raises an error if the norm is not finite."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as right_training


def training(model, options, epoch_length):
    made = right_training(model, options, epoch_length)
    made.wrapper.clip_grad_kwargs["error_if_nonfinite"] = True
    return made
