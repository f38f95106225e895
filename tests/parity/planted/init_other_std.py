"""The port with an error in how it is built or initialised: the level embedding has another deviation."""

from torch import nn

from ddq_port.models.ddq_detr.detector import DDQDETR
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQDETR.init_weights


def _init_weights(self):
    _right(self)
    nn.init.normal_(self.level_embed, std=0.9)


DDQDETR.init_weights = _init_weights
