"""Checkpoints of DDQ FCN and DDQ R-CNN: one layout on both sides, other classes, what the old code reads in a file."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from converters import api
from converters.options import Options
from converters.rules.ports import port
from parity.sides.prepare import seeded_weights

FAMILIES = {"ddq_fcn": "bbox_head", "ddq_rcnn": "rpn_head"}


@pytest.fixture(params=FAMILIES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, dict[str, torch.Tensor]]:
    """Write a checkpoint of the old code; return its family, file and weights."""
    of = port(request.param, "tiny")
    weights = seeded_weights(of.layout("legacy"), 0, of.family.seeding)
    file = tmp_path / "old.pth"
    torch.save(dict(meta=dict(CLASSES=("a", "b", "c"), epoch=12), state_dict=weights), file)
    return request.param, file, weights


def _state_dict(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_family_is_recognised_and_all_keys_are_kept_on_the_way_there_and_back(source, tmp_path: Path) -> None:
    family, file, weights = source
    there, back = tmp_path / "new.pth", tmp_path / "back.pth"
    done = api.convert_file(file, there)
    assert (done.plan.detection.family, done.plan.detection.variant) == (family, "tiny")
    assert "the same keys on both sides" in " ".join(done.plan.notes)
    assert _same(_state_dict(there), weights)
    api.convert_file(there, back, Options(to="legacy"))
    assert _same(_state_dict(back), weights)


def test_every_layer_of_classes_gets_its_rows(source, tmp_path: Path) -> None:
    family, file, weights = source
    there = tmp_path / "new.pth"
    api.convert_file(file, there, Options(num_classes=4, class_map='{"0": 2, "1": null, "2": 0, "3": 1}'))
    converted, layout = _state_dict(there), port(family, "tiny").layout("new")
    assert converted.keys() == layout.tensors.keys()
    changed = {key for key in converted if converted[key].shape != weights[key].shape}
    assert changed == {key for key in weights if key.rsplit(".", 1)[0].endswith(("conv_cls", "fc_cls"))}
    assert len(changed) == (4 if family == "ddq_fcn" else 8)
    for key in changed:
        assert converted[key].shape == (4, *weights[key].shape[1:])
        assert torch.equal(converted[key][[0, 2, 3]], weights[key][[2, 0, 1]])


class _Renaming(nn.Module):
    """A head that takes weights without a version for old ones, as heads of points of MMDetection 2.x do."""

    _version = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv_cls, self.aux_conv_cls = nn.Linear(1, 1), nn.Linear(1, 1)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest) -> None:
        if local_metadata.get("version") is None:
            for name in ("weight", "bias"):
                state_dict[f"{prefix}conv_cls.{name}"] = state_dict.pop(f"{prefix}aux_conv_cls.{name}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def test_a_file_for_the_old_code_tells_the_version_by_which_it_does_not_rename_weights(source, tmp_path: Path) -> None:
    family, file, _ = source
    there, back, head = tmp_path / "new.pth", tmp_path / "back.pth", FAMILIES[family]
    api.convert_file(file, there)
    api.convert_file(there, back, Options(to="legacy"))
    model, own = nn.ModuleDict({head: _Renaming()}), "aux_conv_cls.weight"
    for written, missing in ((there, True), (back, False)):
        read = torch.load(written, weights_only=True)["state_dict"]
        names = [f"{head}.{name}.{leaf}" for name in ("conv_cls", "aux_conv_cls") for leaf in ("weight", "bias")]
        chosen = OrderedDict((name, read[name].flatten()[:1].view((1,) * min(read[name].dim(), 2))) for name in names)
        if hasattr(read, "_metadata"):
            chosen._metadata = read._metadata
        result = model.load_state_dict(chosen, strict=False)
        assert (f"{head}.{own}" in result.missing_keys) == missing
