"""The port with an error: every query goes on to the next layer, whatever the selection says."""

import torch

from ddq_port.models.ddq_detr import decoder
from parity.adapters.ddq_port import *  # noqa: F403

_right = decoder.still_distinct


def _all_active(*arguments):
    survivors, _ = _right(*arguments)
    return survivors, torch.ones_like(survivors)


decoder.still_distinct = _all_active
