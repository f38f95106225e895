"""DDQ R-CNN: Dense Distinct Query for End-to-End Object Detection (https://arxiv.org/abs/2303.12776)."""

from .detector import DDQRCNN
from .rpn import DDQFCNRPN

__all__ = ["DDQFCNRPN", "DDQRCNN"]
