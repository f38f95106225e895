"""MMDetection 3.3.0's own DDQ-DETR, built from the configs in its package, and state dicts for it."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from converters.rules.layout import Layout
from ddq_port import configs
from legacy_adapters import mmdet3, registry


def config(variant: str) -> Any:
    """Return mmdet's config of a variant; a tiny one is its config of the full size with smaller numbers."""
    from mmengine.config import Config

    packaged = registry.get("mmdet_ddq").variant(variant).legacy["config"]
    found = Config.fromfile(mmdet3.packaged_config(packaged))
    own = configs.VARIANTS[variant]
    if Path(packaged).stem != own:
        found.merge_from_dict(dict(model=runpy.run_path(str(configs.path(own)))["model"]))
    found.model.backbone.init_cfg = None
    return found


def build(variant: str) -> nn.Module:
    """Build mmdet's model of a variant."""
    import mmdet.models  # noqa: F401  (registers its modules)
    from mmdet.registry import MODELS

    chosen = config(variant).model
    chosen.pop("data_preprocessor")  # holds no weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MODELS.build(chosen)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict that a training step leaves: there, mmdet makes the head's list the decoder's, too."""
    model.decoder.aux_reg_branches = model.bbox_head.aux_reg_branches
    try:
        return dict(model.state_dict())
    finally:
        del model.decoder.aux_reg_branches


def random_bits(layout: Layout) -> dict[str, Tensor]:
    """Make seeded tensors of any bits at all: NaNs with payloads, -0.0, denormals."""
    generator = torch.Generator().manual_seed(7)
    return {
        key: torch.randint(-(2**31), 2**31, spec.shape, generator=generator, dtype=torch.int32).view(torch.float32)
        if spec.dtype == "float32"
        else torch.randint(-(2**62), 2**62, spec.shape, generator=generator)
        for key, spec in layout.tensors.items()
    }
