"""The port with an error: the decoder refines sparse queries with the dense branch and the other way round."""

from ddq_port.models.ddq_detr.decoder import DDQTransformerDecoder
from parity.adapters.ddq_port import *  # noqa: F403

_right = DDQTransformerDecoder._box_delta


def _swapped(query, branch, aux_branch, layout):
    return _right(query, aux_branch, branch, layout)


DDQTransformerDecoder._box_delta = staticmethod(_swapped)
