"""Adapter of this toolkit's own Co-DETR: the new side."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

from collections.abc import Mapping
from typing import Any

import torch

from legacy_adapters import mmdet3
from legacy_adapters.bases import operators
from legacy_adapters.bases.zero_losses import losses_of_no_positives
from legacy_adapters.targets.by_class import ByClass
from legacy_adapters.targets.co_detr.observing import OF_FURTHER_HEADS, Observed


class PortedCoDETR(Observed, ByClass):
    """Build and run the detector of ``options["config"]``, a path."""

    methods = (*ByClass.methods, *OF_FURTHER_HEADS)

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build it, with the zeros of 2.x: D30 of the register."""
        losses_of_no_positives()
        return mmdet3.build_model(options["config"])

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran."""
        import mmcv
        import mmdet
        import mmengine

        import ddq_port

        return dict(
            code_base="ddq_port",
            config=options["config"],
            mmcv_ops=operators.mmcv_ops(),
            modules=mmdet3.module_provenance(ddq_port, mmdet, mmcv, mmengine),
        )


ADAPTER = PortedCoDETR()
