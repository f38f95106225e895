"""The port with an error: gradients are not clipped."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *  # noqa: F403


def training(model, options, epoch_length):
    config = mmdet3.load_config(options["config"])
    config.optim_wrapper.clip_grad = None
    return mmdet3.training(model, config, epoch_length)
