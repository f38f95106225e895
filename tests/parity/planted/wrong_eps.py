"""The port with an error: the decoder inverts the sigmoid with eps 1e-5 instead of 1e-3."""

from ddq_port.models.ddq_detr import decoder
from parity.adapters.ddq_port import *  # noqa: F403

_right = decoder.inverse_sigmoid
decoder.inverse_sigmoid = lambda x, eps: _right(x, eps=1e-5)
