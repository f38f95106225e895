"""Checkpoints of Co-DETR: the official layout, that of MMDetection's project, other classes, averages of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from converters import api
from converters.errors import ConversionError
from converters.examining.inspection import inspect_file
from converters.options import Options
from converters.rules.detect import detect
from converters.rules.ports import port
from parity.sides.prepare import seeded_weights

KINDS = (
    ("co_detr", "tiny_co_dino"),
    ("co_detr", "tiny_co_deformable"),
    ("co_detr", "tiny_co_dino_swin"),
    ("mmdet_co_detr", "tiny_co_dino_swin"),
)
EMBEDDING = "query_head.label_embedding.weight"


def _weights(family: str, variant: str) -> dict[str, torch.Tensor]:
    of = port(family, variant)
    return seeded_weights(of.layout("legacy"), 0, of.family.seeding)


def _saved(weights: dict[str, torch.Tensor], file: Path, **more: object) -> Path:
    torch.save(dict(meta=dict(CLASSES=("a", "b", "c"), epoch=12), state_dict=weights, **more), file)
    return file


def _read(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(("family", "variant"), KINDS)
def test_every_layout_is_recognised_and_comes_back_byte_by_byte(tmp_path: Path, family: str, variant: str) -> None:
    weights = _weights(family, variant)
    there = tmp_path / "new.pth"
    done = api.convert_file(_saved(weights, tmp_path / "old.pth"), there)
    assert (done.plan.detection.family, done.plan.detection.variant) == (family, variant)
    assert _read(there).keys() == port(family, variant).layout("new").tensors.keys()
    api.convert_file(there, tmp_path / "back.pth", Options(to="legacy", family=family))
    assert _same(_read(tmp_path / "back.pth"), weights)


def test_embedding_of_denoising_queries_is_not_lost(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_dino")
    api.convert_file(_saved(weights, tmp_path / "old.pth"), tmp_path / "new.pth")
    converted = _read(tmp_path / "new.pth")
    assert torch.equal(converted["query_head.dn_generator.label_embedding.weight"], weights[EMBEDDING])
    assert {*weights} - {*converted} == {EMBEDDING}


def test_official_weights_reach_the_layout_of_the_project_and_come_back(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_dino_swin")
    steps = (("co_detr", "new"), ("mmdet_co_detr", "legacy"), ("mmdet_co_detr", "new"), ("co_detr", "legacy"))
    file = _saved(weights, tmp_path / "0.pth")
    for number, (family, to) in enumerate(steps, 1):
        file, source = tmp_path / f"{number}.pth", file
        api.convert_file(source, file, Options(to=to, family=family))
        if number == 2:
            assert _read(file).keys() == port(family, "tiny_co_dino_swin").layout("legacy").tensors.keys()
    assert _same(_read(file), weights)


def test_frequencies_of_a_federated_loss_are_dropped_and_said_so(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_dino")
    for name in ("query_head", "roi_head.0.bbox_head", "bbox_head.0"):
        weights[f"{name}.loss_cls.fed_loss_weight"] = torch.ones(3)
    done = api.convert_file(_saved(weights, tmp_path / "old.pth"), tmp_path / "new.pth")
    assert not any("fed_loss_weight" in key for key in _read(tmp_path / "new.pth"))
    assert done.plan.ledger.count("drop") == 3


def test_weights_of_classes_are_picked_in_all_three_forms(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_dino")
    there = tmp_path / "new.pth"
    options = Options(num_classes=4, class_map='{"0": 2, "1": null, "2": 0, "3": 1}')
    api.convert_file(_saved(weights, tmp_path / "old.pth"), there, options)
    converted = _read(there)
    shapes = {"fc_cls.weight": (5, 64), "fc_cls.bias": (5,), "fc_reg.weight": (16, 64), "fc_reg.bias": (16,)}
    for name, shape in shapes.items():
        key = f"roi_head.0.bbox_head.{name}"
        old, new = weights[key], converted[key]
        assert new.shape == shape
        if "fc_cls" in name:
            assert torch.equal(new[[0, 2, 3, 4]], old[[2, 0, 1, 3]])  # the background stays the last one
        else:
            boxes = old.view(3, 4, *old.shape[1:])
            assert torch.equal(new.view(4, 4, *old.shape[1:])[[0, 2, 3]], boxes[[2, 0, 1]])
    changed = {key for key in weights if key in converted and converted[key].shape != weights[key].shape}
    assert len(changed) == 4 + 2 * 4 + 2  # regions, branches of three layers and of the encoder, anchors
    assert converted["query_head.dn_generator.label_embedding.weight"].shape == (4, 64)


def test_averages_under_another_name_are_read(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_dino")
    file = tmp_path / "old.pth"
    torch.save(dict(model={}, ema=dict(module=weights, updates=7)), file)
    done = api.convert_file(file, tmp_path / "new.pth")
    assert (done.plan.detection.family, done.plan.detection.variant) == ("co_detr", "tiny_co_dino")
    assert len(_read(tmp_path / "new.pth")) == len(weights)


def test_the_heads_tell_the_model_whatever_backbone_has_the_nearest_size() -> None:
    large = port("co_detr", "co_dino_5scale_swin_l").layout("legacy").tensors
    deformable = port("co_detr", "co_deformable_swin_t").layout("legacy").tensors
    shapes = {key: spec.shape for key, spec in deformable.items() if not key.startswith("backbone")}
    shapes |= {key: spec.shape for key, spec in large.items() if key.startswith("backbone")}
    found = detect({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    assert (found.family, found.variant) == ("co_detr", "co_deformable_swin_t")


def test_a_mask_branch_is_told_and_not_converted(tmp_path: Path) -> None:
    weights = _weights("co_detr", "tiny_co_deformable") | {"roi_head.0.mask_head.conv_logits.weight": torch.ones(3, 8, 1, 1)}
    file = _saved(weights, tmp_path / "old.pth")
    assert inspect_file(file).unknown_keys == ("roi_head.0.mask_head.conv_logits.weight",)
    with pytest.raises(ConversionError, match="roi_head.0.mask_head.conv_logits.weight"):
        api.convert_file(file, tmp_path / "new.pth")
