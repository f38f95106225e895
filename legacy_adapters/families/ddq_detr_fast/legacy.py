"""Adapter of this toolkit's DDQ-DETR with its legacy numerics."""

from __future__ import annotations

from legacy_adapters.targets.ddq_detr.new import PortedDDQDETR


class LegacyNumerics(PortedDDQDETR):
    """Build and run the detector; its NMS is tried with as many boxes as a decoder has queries."""

    probes = 1


ADAPTER = LegacyNumerics()
