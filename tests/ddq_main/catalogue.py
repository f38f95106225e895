"""All faults of the ports of DDQ FCN and DDQ R-CNN; the places were written down before anything was measured."""

from __future__ import annotations

from .faults_fcn import FAULTS as OF_FCN
from .faults_rcnn import FAULTS as OF_RCNN

ALL = (*OF_FCN, *OF_RCNN)
FAULTS = {fault.name: fault for fault in ALL}
