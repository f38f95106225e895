"""Adapter of MMDetection 3.3.0's own ``DDQDETR``, as installed with pip."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import torch

from legacy_adapters import mmdet3, standin
from legacy_adapters.bases import ddq, operators
from legacy_adapters.provenance import originals
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.methods import Aside
from legacy_adapters.recording.taps import Tap

PACKAGES = ("mmdet", "mmcv", "mmengine")


class MMDetDDQDETR(mmdet3.MMDet3Adapter):
    """Build and run mmdet's model."""

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of a config in mmdet's package, e.g. ``ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py``."""
        return mmdet3.packaged_config(options["config"])

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the model of ``config`` with ``overrides``, see :func:`mmdet3.build_model`."""
        standin.install()
        import mmdet.models  # noqa: F401  (registers its modules)

        return mmdet3.build_model(self.config(options), options["overrides"])

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Watch query selection, both matchings, the noise and the final top-k."""
        from mmdet.models.detectors import ddq_detr
        from mmdet.models.layers.transformer import ddq_detr_layers
        from mmdet.models.task_modules.assigners import hungarian_assigner, topk_hungarian_assigner

        return [
            ddq.selection_tap(ddq_detr, "batched_nms", model.num_queries, ddq.selection_probe(model)),
            ddq.selection_tap(ddq_detr_layers, "batched_nms", model.num_queries),
            *tap_lib.matchings({hungarian_assigner: "match", topk_hungarian_assigner: "dense_match"}),
            *tap_lib.random_taps(),
            *tap_lib.rankings(),
        ]

    def aside(self, model: torch.nn.Module) -> Aside:
        """Give the masks in the dict that all modules share."""
        return ddq.aside(model)

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Prove which code ran."""
        import mmcv
        import mmdet
        import mmengine

        return dict(
            code_base="mmdet " + mmdet.__version__,
            modules=mmdet3.module_provenance(mmdet, mmcv, mmengine),
            altered=originals.altered(PACKAGES),
            mmcv_ops=operators.mmcv_ops(),
        )


ADAPTER = MMDetDDQDETR()
