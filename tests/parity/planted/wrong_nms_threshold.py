"""The port with an error: duplicates are told by an IoU over 0.5 instead of 0.8."""

from ddq_port.models.ddq_detr.queries import DistinctSelection
from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    model.selection = model.decoder.selection = DistinctSelection(0.5)
    return model
