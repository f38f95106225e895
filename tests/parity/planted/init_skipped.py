"""The port with an error in how it is built or initialised: the head is not initialised."""

from ddq_port.models.ddq_detr.head import DDQDETRHead
from parity.adapters.ddq_port import *  # noqa: F403

DDQDETRHead.init_weights = lambda self: None
