"""Adapter of detectors of MMDetection 2.x: the legacy side."""

from __future__ import annotations

from typing import Any, List

from legacy_adapters.bases import operators
from legacy_adapters.mmdet2 import MMDet2Adapter
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings


class MMDet2Detector(MMDet2Adapter):
    """Build and run any detector of a config."""

    def taps(self, model: Any) -> List[Tap]:
        """Watch what is discrete or drawn."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]


ADAPTER = MMDet2Detector()
