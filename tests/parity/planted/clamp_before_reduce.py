"""The port with an error: a rank without objects counts as one with a single object in the mean."""

from ddq_port.models.ddq_detr import head
from parity.adapters.ddq_port import *  # noqa: F403

_right = head.reduce_mean
head.reduce_mean = lambda factor: _right(factor.clamp(min=1))
