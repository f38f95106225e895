"""The rule tables against the layouts, and the layouts themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from converters.errors import FamilyError
from converters.rules.layout import Layout, TensorSpec, model_order
from legacy_adapters import registry
from tests.models import LAYOUTS, described
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of
from tests.models import variants as variants_of

CASES = [(family, variant) for family in registry.own() for variant in variants_of(family)]


@pytest.mark.parametrize("family, variant", CASES)
def test_every_key_goes_there_and_back(family: str, variant: str) -> None:
    mapping = mapping_of(family, variant)
    new, legacy = stored_layout(variant, family), stored_layout(variant, family, "legacy")
    assert legacy.mapped(mapping) == new
    assert len(legacy.tensors) == len(new.tensors)


@pytest.mark.parametrize("family, variant", CASES)
def test_every_rule_is_used(family: str, variant: str) -> None:
    mapping = mapping_of(family, variant)
    keys = set(stored_layout(variant, family, "legacy").tensors)
    keys |= {key.replace("bbox_head.aux_reg", "decoder.aux_reg") for key in keys if "aux_reg" in key}
    if "co_detr" in family:  # of models for LVIS
        keys |= {f"{head}.loss_cls.fed_loss_weight" for head in ("query_head", "roi_head.0.bbox_head", "bbox_head.0")}
    used = {match.rule for match in map(mapping.match, keys) if match is not None}
    assert used == set(range(len(mapping.rules)))


def test_the_dense_branch_moves_and_nothing_else() -> None:
    mapping = mapping_of("ddq_detr", "r50_4scale")
    legacy = stored_layout("r50_4scale", side="legacy").tensors
    moved = {key: mapping.target_of(key) for key in legacy if mapping.target_of(key) != key}
    assert len(legacy) == 684 and len(moved) == 8
    for key, target in moved.items():
        kind = "cls" if ".cls_" in key else "reg"
        assert target == key.replace(f".{kind}_branches.7.", f".aux_{kind}_branches.6.")


@pytest.mark.parametrize(
    "path, expected",
    [
        ("bbox_head.cls_branches.7", "bbox_head.aux_cls_branches.6"),
        ("bbox_head.reg_branches.7.0", "bbox_head.aux_reg_branches.6.0"),
        ("bbox_head.reg_branches.7.1", "bbox_head.aux_reg_branches.6.1"),
        ("bbox_head.cls_branches.6", "bbox_head.cls_branches.6"),
        ("decoder.aux_reg_branches.5.0", "bbox_head.aux_reg_branches.5.0"),
        ("encoder.layers.0.ffn", "encoder.layers.0.ffn"),
        ("encoder", "encoder"),
        ("decoder", "decoder"),
        ("bbox_head", "bbox_head"),
        ("", ""),
        ("backbone.relu", "backbone.relu"),
        ("positional_encoding", "positional_encoding"),
    ],
)
def test_modules_pair_by_the_same_rules(path: str, expected: str) -> None:
    assert mapping_of("ddq_detr", "r50_4scale").map_module(path) == expected


def test_parameter_count_of_the_published_model() -> None:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    sizes = [
        torch.Size(spec.shape).numel()
        for key, spec in stored_layout("r50_4scale").tensors.items()
        if not key.endswith(statistics)
    ]
    assert sum(sizes) == 48_610_008


@pytest.mark.parametrize("variant", variants_of("ddq_detr"))
def test_layout_file_is_what_the_code_writes(variant: str) -> None:
    stored = (LAYOUTS / f"{variant}.json").read_text()
    assert stored_layout(variant).to_json() == stored


def test_layout_of_a_module() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.BatchNorm1d(3))
    found = described(model, "toy")
    assert found.tensors["0.weight"] == TensorSpec("float32", (3, 2))
    assert found.tensors["1.num_batches_tracked"] == TensorSpec("int64", ())
    assert found.parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert found.buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert found.frozen == {"0.weight", "0.bias"}
    assert Layout.from_json("toy", found.to_json()) == found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("b.w b.x.w a.w", "b.w b.x.w a.w"),
        ("h.1.w h.0.w g.w h.2.w h.10.w", "h.0.w h.1.w h.2.w h.10.w g.w"),
        ("h.a.0.w h.b.0.w h.a.1.w", "h.a.0.w h.a.1.w h.b.0.w"),
        ("w", "w"),
    ],
)
def test_order_of_a_model_whose_modules_are_made_in_the_order_of_first_appearance(keys: str, expected: str) -> None:
    assert model_order(keys.split()) == tuple(expected.split())


@pytest.mark.parametrize(("variant", "parameters", "frozen"), [("r50_4scale", 525, 117), ("swinl_4scale", 697, 0)])
def test_parameters_and_frozen_ones_of_both_sides(variant: str, parameters: int, frozen: int) -> None:
    for side in ("legacy", "new"):
        found = stored_layout(variant, side=side)
        assert (len(found.parameters), len(found.frozen)) == (parameters, frozen)
        assert found.frozen <= set(found.parameters)


def test_legacy_branch_that_moves_stands_last_in_its_own_list() -> None:
    names = [key for key in stored_layout("tiny_r18", side="legacy").parameters if "_branches" in key]
    lists = list(dict.fromkeys(".".join(name.split(".")[1:3]) for name in names))
    assert lists == [
        *(f"{kind}_branches.{i}" for kind in ("cls", "reg") for i in range(5)),
        *(f"aux_{kind}_branches.{i}" for kind in ("cls", "reg") for i in range(3)),
    ]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(FamilyError, match="There is no family `yolo`; known are co_detr, ddq_detr, ddq_detr_fast, ddq_fcn, ddq_rcnn, mmdet2, mmdet_co_detr, mmdet_ddq"):
        mapping_of("yolo", "r50_4scale")
    with pytest.raises(FamilyError, match="has no variant `r18`; known are r50_4scale, .*tiny_r18."):
        mapping_of("ddq_detr", "r18")
