"""The port with an error in how it is built or initialised: the level embedding is uniform instead of normal."""

from torch import nn

from ddq_port.models.ddq_detr.detector import DDQDETR
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQDETR.init_weights


def _init_weights(self):
    _right(self)
    nn.init.uniform_(self.level_embed, -(3**0.5), 3**0.5)


DDQDETR.init_weights = _init_weights
