"""MMDetection's DETR and Deformable DETR, with options for the numerics of MMDetection 2.x."""

from .detectors import DETR, DeformableDETR
from .heads import DeformableDETRHead, DETRHead
from .matching import NormalizedBBoxL1Cost

__all__ = ["DETR", "DETRHead", "DeformableDETR", "DeformableDETRHead", "NormalizedBBoxL1Cost"]
