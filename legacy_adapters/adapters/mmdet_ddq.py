"""Adapter of MMDetection 3.3.0's own ``DDQDETR``, as installed with pip."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import torch

from legacy_adapters import families, mmdet3, standin
from legacy_adapters.adapters.ddq_detr import (  # noqa: F401  (`aside` is the worker's)
    aside,
    selection_probe,
    selection_tap,
)
from legacy_adapters.provenance import originals
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.taps import Tap

predict, losses, variants = mmdet3.predict, mmdet3.losses, mmdet3.variants


def build(options: Dict[str, Any], device: str) -> torch.nn.Module:
    """Build mmdet's model.

    Args:
        options: ``config``: name of a config in mmdet's package, e.g. ``ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py``;
            ``overrides``: as in :func:`mmdet3.build_model`.
        device: not used; the model is moved by the worker.
    """
    standin.install()
    import mmdet.models  # noqa: F401  (registers its modules)

    return mmdet3.build_model(mmdet3.packaged_config(options["config"]), options["overrides"])


def training(model: torch.nn.Module, options: Dict[str, Any], epoch_length: Optional[int]) -> mmdet3.EngineTraining:
    """Make optimizer and schedulers of mmdet's config."""
    config = mmdet3.load_config(mmdet3.packaged_config(options["config"]))
    return mmdet3.training(model, config, epoch_length)


def distributed(model: torch.nn.Module, options: Dict[str, Any]) -> torch.nn.Module:
    """Wrap the model as mmengine does for mmdet's config."""
    return mmdet3.distributed(model, mmdet3.load_config(mmdet3.packaged_config(options["config"])))


def image_detector(model: torch.nn.Module, options: Dict[str, Any]) -> mmdet3.Detector:
    """Take the test pipeline of mmdet's config; ``options["scale"]`` takes the place of its image scale."""
    return mmdet3.Detector(model, mmdet3.load_config(mmdet3.packaged_config(options["config"])), options.get("scale"))


def taps(model: torch.nn.Module) -> List[Tap]:
    """Watch query selection, both matchings, the noise and the final top-k."""
    from mmdet.models.detectors import ddq_detr
    from mmdet.models.layers.transformer import ddq_detr_layers
    from mmdet.models.task_modules.assigners import hungarian_assigner, topk_hungarian_assigner

    return [
        selection_tap(ddq_detr, "batched_nms", model.num_queries, selection_probe(model)),
        selection_tap(ddq_detr_layers, "batched_nms", model.num_queries),
        *tap_lib.matchings({hungarian_assigner: "match", topk_hungarian_assigner: "dense_match"}),
        *tap_lib.random_taps(),
        *tap_lib.rankings(),
    ]


def provenance(options: Dict[str, Any]) -> dict:
    """Prove which code ran."""
    import mmcv
    import mmdet
    import mmengine

    return dict(
        code_base="mmdet " + mmdet.__version__,
        modules=mmdet3.module_provenance(mmdet, mmcv, mmengine),
        altered=originals.altered(families.get("mmdet_ddq").packages),
        mmcv_ops=mmdet3.mmcv_ops(),
    )
