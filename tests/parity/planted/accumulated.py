"""The port with an optimizer wrapper that takes a step for every two batches."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *  # noqa: F403


def training(model, options, epoch_length):
    config = mmdet3.load_config(options["config"])
    config.optim_wrapper.accumulative_counts = 2
    return mmdet3.training(model, config, epoch_length)
