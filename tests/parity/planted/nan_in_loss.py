"""The port with a box loss that is the logarithm of a negative number."""

from functools import wraps

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    loss = model.bbox_head.loss_bbox
    right = loss.forward
    loss.forward = wraps(right)(lambda *args, **kwargs: (-right(*args, **kwargs).exp()).log())
    return model
