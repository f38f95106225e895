"""The port with an error: it gives 5 detections instead of 50."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import build as _right


def build(options, device):
    model = _right(options, device)
    model.bbox_head.test_cfg.max_per_img = 5
    return model
