"""A new side on MMDetection 3.x that gives detections in the order of 2.x, whose results are lists for each class."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping

import torch
from torch import Tensor

from legacy_adapters import mmdet3
from legacy_adapters.inputs import UNSCALED, Batch


class ByClass(mmdet3.MMDet3Adapter):
    """Run a detector of 3.x; give what it detects class by class."""

    def predict(self, model: Any, batch: Batch) -> List[Dict[str, Tensor]]:
        """Run inference."""
        return [_by_class(found) for found in super().predict(model, batch)]

    def variants(self, model: Any) -> Dict[str, Callable[[Batch], List[Any]]]:
        """Return inference with boxes of the resized images."""
        unscaled = super().variants(model)[UNSCALED]
        return {UNSCALED: lambda batch: [_by_class(found) for found in unscaled(batch)]}

    def image_detector(
        self, model: torch.nn.Module, options: Mapping[str, Any]
    ) -> Callable[[str, int], Dict[str, Any]]:
        """Take the test pipeline of the config."""
        detect = super().image_detector(model, options)

        def by_class(path: str, image_id: int) -> Dict[str, Any]:
            found = detect(path, image_id)
            return {**found, **_by_class({name: found[name] for name in self.result_keys})}

        return by_class


def _by_class(detected: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Put the detections of an image into the order of 2.x: by class, within one as the head gives them."""
    order = detected["labels"].argsort(stable=True)
    return {name: value[order] for name, value in detected.items()}
