"""The port with an error: the learning rate warms up over 1000 steps instead of 2000."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *  # noqa: F403


def training(model, options, epoch_length):
    config = mmdet3.load_config(options["config"])
    config.param_scheduler[0].end = 1000
    return mmdet3.training(model, config, epoch_length)
