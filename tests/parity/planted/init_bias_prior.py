"""The port with an error in how it is built or initialised: classes start at a score of 0.02."""

from ddq_port.models.ddq_detr import head
from parity.adapters.ddq_port import *  # noqa: F403

_right = head.bias_init_with_prob
head.bias_init_with_prob = lambda prior: _right(0.02)
