"""The port with an error in how it is built or initialised: everything is initialised once more."""

from ddq_port.models.ddq_detr.detector import DDQDETR
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQDETR.init_weights


def _init_weights(self):
    _right(self)
    _right(self)


DDQDETR.init_weights = _init_weights
