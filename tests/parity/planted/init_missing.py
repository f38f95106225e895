"""The port with an error in how it is built or initialised: nothing is initialised after it is built."""

from ddq_port.models.ddq_detr.detector import DDQDETR
from parity.adapters.ddq_port import *  # noqa: F403

DDQDETR.init_weights = lambda self: None
