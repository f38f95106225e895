"""The port with an error: the backbone learns as fast as the rest."""

from legacy_adapters import mmdet3
from parity.adapters.ddq_port import *  # noqa: F403


def training(model, options, epoch_length):
    config = mmdet3.load_config(options["config"])
    del config.optim_wrapper["paramwise_cfg"]
    return mmdet3.training(model, config, epoch_length)
