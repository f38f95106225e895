"""Adapter of detectors of MMDetection 2.x: the legacy side."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

from torch import Tensor

from legacy_adapters.bases import operators
from legacy_adapters.bases.configs import class_names
from legacy_adapters.inputs import UNSCALED, Batch
from legacy_adapters.mmdet2 import MMDet2Adapter, load_config
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings

#: Detectors whose masks are whole numbers, 0 and 1 and no others; those of 3.x are booleans.
_WITH_WHOLE_NUMBERS = ("YOLACT",)


class MMDet2Detector(MMDet2Adapter):
    """Build and run any detector of a config."""

    def predict(self, model: Any, batch: Batch) -> List[Dict[str, Tensor]]:
        """Run inference; return what 2.x gives, masks as 3.x has them."""
        return _with_booleans(model, super().predict(model, batch))

    def variants(self, model: Any) -> Dict[str, Callable[[Batch], List[Any]]]:
        """Return inference with boxes of the resized images."""
        unscaled = super().variants(model)[UNSCALED]
        return {UNSCALED: lambda batch: _with_booleans(model, unscaled(batch))}

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Tell which code ran, what was put in place for it, and what the config calls the classes."""
        data = load_config(self.config(options)).get("data") or {}
        names = (class_names(data.get(part), _own_classes) for part in ("test", "val", "train"))
        return dict(super().provenance(options), class_names=next(filter(None, names), None))

    def taps(self, model: Any) -> List[Tap]:
        """Watch what is discrete or drawn."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]


def _with_booleans(model: Any, images: List[Dict[str, Tensor]]) -> List[Dict[str, Tensor]]:
    if type(model).__name__ not in _WITH_WHOLE_NUMBERS:
        return images
    return [dict(detected, masks=detected["masks"].bool()) for detected in images]


def _own_classes(dataset: str) -> Any:
    try:
        from mmdet.datasets import DATASETS
    except ImportError:  # the model needs no package that reads annotations
        return None
    return getattr(DATASETS.get(dataset), "CLASSES", None)


ADAPTER = MMDet2Detector()
