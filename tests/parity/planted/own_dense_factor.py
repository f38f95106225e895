"""The port with an error: the dense loss is divided by the qualities of this rank alone."""

from ddq_port.models.ddq_detr import aux_loss
from parity.adapters.ddq_port import *  # noqa: F403

aux_loss.reduce_mean = lambda factor: factor
