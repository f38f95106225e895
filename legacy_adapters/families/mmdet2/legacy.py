"""Adapter of detectors of MMDetection 2.x: the legacy side."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

from legacy_adapters.bases import operators
from legacy_adapters.bases.configs import class_names
from legacy_adapters.mmdet2 import MMDet2Adapter, load_config
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings


class MMDet2Detector(MMDet2Adapter):
    """Build and run any detector of a config."""

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran, what was put in place for it, and what the config calls the classes."""
        data = load_config(self.config(options)).get("data") or {}
        names = (class_names(data.get(part), _own_classes) for part in ("test", "val", "train"))
        return dict(super().provenance(options), class_names=next(filter(None, names), None))

    def taps(self, model: Any) -> List[Tap]:
        """Watch what is discrete or drawn."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]


def _own_classes(dataset: str) -> Any:
    try:
        from mmdet.datasets import DATASETS
    except ImportError:  # the model needs no package that reads annotations
        return None
    return getattr(DATASETS.get(dataset), "CLASSES", None)


ADAPTER = MMDet2Detector()
