"""The port with an error: the learning rate decays after epoch 1 instead of 11."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *  # noqa: F403


def training(model, options, epoch_length):
    config = mmdet3.load_config(options["config"])
    config.param_scheduler[1].milestones = [1]
    return mmdet3.training(model, config, epoch_length)
