"""The stored layouts against mmdet's own DDQ-DETR, whose state dict has the legacy layout."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from converters import families, layout
from converters.detect import Detection, detect
from converters.layout import layout_of

pytest.importorskip("mmdet")
pytest.importorskip("ddq_port")  # supplies the compiled operators that mmdet's models import


def _config(variant: str) -> Any:
    import mmdet
    from mmengine.config import Config

    path = Path(mmdet.__file__).parent / ".mim/configs/ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py"
    config = Config.fromfile(path).model
    config.pop("data_preprocessor")  # holds no weights
    config.backbone.init_cfg = None
    if variant == "tiny_4scale":
        config.backbone.update(depth=18, base_channels=16)
        config.neck.update(in_channels=[32, 64, 128], out_channels=64)
        config.encoder.num_layers, config.decoder.num_layers = 2, 3
        for part in (config.encoder, config.decoder):
            part.layer_cfg.self_attn_cfg.embed_dims = 64
            part.layer_cfg.ffn_cfg.update(embed_dims=64, feedforward_channels=128)
        config.decoder.layer_cfg.cross_attn_cfg.embed_dims = 64
        config.positional_encoding.num_feats = 32
        config.bbox_head.update(num_classes=3, embed_dims=64)
    return config


@pytest.fixture(scope="module", params=["r50_4scale", "tiny_4scale"])
def variant_and_model(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """Build mmdet's model of a variant on the meta device."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        from mmdet.registry import MODELS

        return request.param, MODELS.build(_config(request.param))


def test_mmdet_has_the_legacy_layout(variant_and_model: tuple[str, nn.Module]) -> None:
    variant, model = variant_and_model
    assert layout_of(model, variant) == layout.load(variant, "mmdet_ddq", "legacy")
    assert detect(model.state_dict()) == Detection("ddq_detr", variant, "legacy")


def test_every_module_with_weights_is_paired_like_its_weights(variant_and_model: tuple[str, nn.Module]) -> None:
    variant, model = variant_and_model
    mapping = families.mapping("mmdet_ddq", variant)
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            key = f"{path}.{name}".lstrip(".")
            assert mapping.target_of(key) == f"{mapping.map_module(path)}.{name}".lstrip(".")


def test_training_leaves_duplicates_that_the_mapping_knows(variant_and_model: tuple[str, nn.Module]) -> None:
    variant, model = variant_and_model
    model.decoder.aux_reg_branches = model.bbox_head.aux_reg_branches  # what mmdet does in every training step
    try:
        keys = set(model.state_dict())
    finally:
        del model.decoder.aux_reg_branches
    extra = keys - layout.load(variant, "mmdet_ddq", "legacy").tensors.keys()
    matches = [families.mapping("mmdet_ddq", variant).match(key) for key in extra]
    assert len(extra) == (36 if variant == "r50_4scale" else 18)
    assert all(match is not None and match.twin in keys for match in matches)
