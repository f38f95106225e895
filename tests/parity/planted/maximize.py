"""The port with an optimizer that has `maximize` set."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as right_training


def training(model, options, epoch_length):
    made = right_training(model, options, epoch_length)
    for group in made.optimizer.param_groups:
        group["maximize"] = True
    return made
