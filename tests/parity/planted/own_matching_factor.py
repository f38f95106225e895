"""The port with an error: the matching loss is divided by the number of objects of this rank alone."""

from ddq_port.models.ddq_detr import head
from parity.adapters.ddq_port import *  # noqa: F403

head.reduce_mean = lambda factor: factor
