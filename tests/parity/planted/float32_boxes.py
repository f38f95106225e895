"""The port as it is by default, whose boxes stay in float32 under autocast; the legacy code's are rounded."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as right_build


def build(options, device):
    model = right_build(options, device)
    model.bbox_head.float32_boxes = True
    return model
