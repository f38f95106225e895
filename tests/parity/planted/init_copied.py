"""The port with an error in how it is built or initialised: the second layer of the encoder is a copy of the first."""

from ddq_port.models.ddq_detr.detector import DDQDETR
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQDETR.init_weights


def _init_weights(self):
    _right(self)
    self.encoder.layers[1].load_state_dict(self.encoder.layers[0].state_dict())


DDQDETR.init_weights = _init_weights
