"""Why some configs of MMDetection 2.x cannot be carried over at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Class of a detector or of a part of it -> the reason. What 3.x lacks is looked up, not listed here.
_REASONS = {
    "FastRCNN": "it is given proposals from a file, which a batch of images does not have",
    "KnowledgeDistillationSingleStageDetector": "its teacher is made of another config and a checkpoint, which is not there",
}
#: Detectors that give instances, segments of a whole image, or both, as their `test_cfg` says.
_SEGMENTING = ("MaskFormer", "Mask2Former")
#: Other packages that backbones come from.
_PACKAGES = {"mmcls": "mmcls", "timm": "timm"}


def lacking(model: Mapping[str, Any]) -> str:
    """Say why a model cannot be tried; nothing if it can."""
    kind = str(model.get("type"))
    if kind in _REASONS:
        return _REASONS[kind]
    settings = model.get("test_cfg") or {}
    if kind == "PanopticFPN" or (kind in _SEGMENTING and not settings.get("instance_on", False)):
        return "it gives a panoptic segmentation and no detections, which the family does not compare"
    backbone = model.get("backbone") or {}
    name = str(backbone.get("type")) if isinstance(backbone, Mapping) else ""
    scope = name.partition(".")[0]
    if scope in _PACKAGES and "." in name:
        return f"its backbone {name} is of {_PACKAGES[scope]}, in a version for mmcv 1.x"
    return ""
