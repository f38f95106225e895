"""All faults of the port of Co-DETR; the places were written down before anything was measured."""

from __future__ import annotations

from .faults_heads import FAULTS as OF_HEADS
from .faults_queries import FAULTS as OF_QUERIES

ALL = (*OF_QUERIES, *OF_HEADS)
FAULTS = {fault.name: fault for fault in ALL}
