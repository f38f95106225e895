"""Adapter of this toolkit's own DDQ FCN and DDQ R-CNN: the new side."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from legacy_adapters import mmdet3
from legacy_adapters.bases import operators
from legacy_adapters.inputs import UNSCALED, Batch
from legacy_adapters.targets.ddq_main.observing import Observed


class PortedDDQ(Observed, mmdet3.MMDet3Adapter):
    """Build and run the detector of ``options["config"]``, a path."""

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build it, to give boxes as the official code does where those of resized images are asked for."""
        model = mmdet3.build_model(options["config"])
        if getattr(model, "bbox_head", None) is not None:
            model.bbox_head.always_rescale = True  # D39 of the register
        return model

    def predict(self, model: Any, batch: Batch) -> list[dict[str, Tensor]]:
        """Run inference; return what 2.x does: class by class."""
        return [_by_class(found) for found in super().predict(model, batch)]

    def variants(self, model: Any) -> dict[str, Callable[[Batch], list[Any]]]:
        """Return inference with boxes of the resized images."""
        unscaled = super().variants(model)[UNSCALED]
        return {UNSCALED: lambda batch: [_by_class(found) for found in unscaled(batch)]}

    def image_detector(self, model: Any, options: Mapping[str, Any]) -> Callable[[str, int], dict[str, Any]]:
        """Take the test pipeline of the config; return what 2.x does: class by class."""
        detect = super().image_detector(model, options)

        def by_class(path: str, image_id: int) -> dict[str, Any]:
            found = detect(path, image_id)
            return {**found, **_by_class({name: found[name] for name in ("bboxes", "scores", "labels")})}

        return by_class

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


def _by_class(detected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the detections of an image into the order of 2.x: by class, within one as the head gives them."""
    order = detected["labels"].argsort(stable=True)
    return {name: value[order] for name, value in detected.items()}


ADAPTER = PortedDDQ()
