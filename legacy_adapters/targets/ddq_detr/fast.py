"""Adapter of this toolkit's DDQ-DETR with fast numerics."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

from collections.abc import Mapping
from typing import Any

import torch

from ddq_port.models.ddq_detr.detector import FAST
from legacy_adapters import mmdet3
from legacy_adapters.recording.taps import Tap
from legacy_adapters.targets.ddq_detr import fast_taps
from legacy_adapters.targets.ddq_detr.new import PortedDDQDETR


class FastDDQDETR(PortedDDQDETR):
    """Build and run the detector of ``options["config"]`` with ``numerics='fast'``."""

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build it, to be run under autocast if ``options`` has ``amp``."""
        config = mmdet3.load_config(options["config"])
        config.model.numerics = FAST
        model = mmdet3.build_from(config)
        if "amp" in options:
            model.bbox_head.float32_boxes = False
        return model

    def taps(self, model: torch.nn.Module) -> list[Tap]:
        """Watch the same decisions as in the legacy numerics."""
        return fast_taps.taps(model)

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran."""
        return dict(super().provenance(options), code_base="ddq_port, numerics fast")


ADAPTER = FastDDQDETR()
