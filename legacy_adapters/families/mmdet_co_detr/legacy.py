"""Adapter of Co-DETR in the layout of `projects/CO-DETR`: this toolkit's detector on MMDetection's own Swin Transformer.

The project is not in MMDetection's package. Its heads and its transformer have the names and shapes of this toolkit's.
"""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

from typing import Any, Mapping

import torch

from legacy_adapters import mmdet3
from legacy_adapters.targets.co_detr.new import PortedCoDETR


class CoDETROnMMDetSwin(PortedCoDETR):
    """Build and run the detector of ``options["config"]`` with the backbone of ``options["overrides"]``."""

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build it."""
        return mmdet3.build_model(options["config"], options["overrides"])


ADAPTER = CoDETROnMMDetSwin()
