"""Configs of MMDetection 2.x are listed by what they are of, made narrow, and carried over with both sides matching."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from converters.configs.zoo import NarrowError
from legacy_adapters.families.mmdet2.migration.reading import read
from legacy_adapters.families.mmdet2.zoo import listing
from legacy_adapters.families.mmdet2.zoo.narrowing import FACTOR, narrowed, spelled_out
from legacy_adapters.families.mmdet2.zoo.zoo import ZOO
from parity.zoo import result, trying
from parity.zoo.request import Request
from parity.zoo.result import Result

REPO = os.environ.get("DDQ_MMDET2_REPO")
CONFIG = Path(__file__).parents[1] / "migration" / "old_config.py"


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """Return a folder with configs of one architecture, one of them on another backbone, and with what is no config."""
    folder = tmp_path_factory.mktemp("repo")
    configs = folder / "configs"
    (configs / "pets").mkdir(parents=True)
    (configs / "_base_").mkdir()
    shutil.copy(CONFIG, configs / "pets" / "faster_rcnn_r50.py")
    shutil.copy(CONFIG, configs / "_base_" / "base.py")
    (configs / "pets" / "faster_rcnn_r50_2x.py").write_text('_base_ = "faster_rcnn_r50.py"\n')
    (configs / "pets" / "schedule.py").write_text("lr_config = dict(policy='step')\n")
    backbone = 'dict(_delete_=True, type="RegNet", arch="regnetx_400mf")'
    (configs / "pets" / "regnet.py").write_text(f'_base_ = "faster_rcnn_r50.py"\nmodel = dict(backbone={backbone})\n')
    return folder


def test_one_config_stands_for_each_architecture_and_backbone(repo):
    entries = {entry.name: entry for entry in listing.entries(repo)}
    assert {entry.architecture for entry in entries.values()} == {"FasterRCNN RPNHead StandardRoIHead Shared2FCBBoxHead"}
    assert {name: entry.is_pick for name, entry in entries.items()} == {
        "pets/faster_rcnn_r50.py": True, "pets/faster_rcnn_r50_2x.py": False, "pets/regnet.py": True,
    }  # fmt: skip


def test_a_narrow_model_is_the_whole_one_but_for_its_widths(repo, tmp_path):
    case = ZOO.case(repo, "pets/faster_rcnn_r50.py", tmp_path, narrow=True)
    old, new = read(str(case.legacy), "2.x")["model"], read(str(case.new), "3.x")["model"]
    assert case.width == 1 / FACTOR
    for model in (old, new):
        assert (model["backbone"]["base_channels"], model["neck"]["in_channels"]) == (16, [64, 128, 256, 512])
        assert model["roi_head"]["bbox_head"]["num_classes"] == 3 and model["backbone"]["depth"] == 50


def test_a_width_that_is_no_setting_is_left_alone(repo, tmp_path):
    with pytest.raises(NarrowError, match="RegNet"):
        ZOO.case(repo, "pets/regnet.py", tmp_path, narrow=True)
    assert ZOO.case(repo, "pets/regnet.py", tmp_path, narrow=False).width == 1


def test_a_backbone_within_a_neck_is_made_narrow_as_well():
    second = dict(type="DetectoRS_ResNet", depth=50, rfp_inplanes=256)
    made = narrowed(spelled_out(dict(backbone=dict(type="ResNet"), neck=dict(type="RFP", rfp_backbone=second))))
    assert made["backbone"]["base_channels"] == 16
    assert made["neck"]["rfp_backbone"] == dict(second, rfp_inplanes=64, base_channels=16)


@pytest.mark.parametrize(
    ("checks", "is_exact", "told"),
    [
        (("forward",), True, ("D31", "D36")),
        (("forward",), False, ("D29", "D31", "D36")),
        (("forward", "loss"), True, ("D30", "D31", "D36")),
    ],
)
def test_only_what_can_show_is_said_to_be_undone(checks, is_exact, told):
    assert ZOO.shown(("D29", "D30", "D31", "D36"), checks, is_exact) == told


def judged(detections: list[int]) -> Result:
    images = [SimpleNamespace(counts={"legacy": count}) for count in detections]
    verdict = SimpleNamespace(outcome="MATCH", comparisons=(), detections=images)
    return trying._judged(Result("a.py", "A", result.UNSUPPORTED), verdict, "exact")


def test_a_match_without_detections_proves_nothing():
    assert judged([]).verdict == judged([0, 1]).verdict == result.INCOMPARABLE
    assert judged([0, 2]).verdict == result.MATCH


@pytest.mark.skipif(REPO is None, reason="needs MMDetection 2.x: DDQ_MMDET2_REPO=FOLDER")
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("retinanet/retinanet_r50_fpn_1x_coco.py", result.MATCH),
        ("fast_rcnn/fast_rcnn_r50_fpn_1x_coco.py", result.UNSUPPORTED),
    ],
)
def test_configs_of_2x_are_tried(tmp_path, name, verdict):
    request = Request("mmdet2", str(REPO), name, "", True, ("forward",), 0, 1, 600.0)
    found = trying.attempt(request, tmp_path)
    assert (found.verdict, found.tolerance) == (verdict, "exact" if verdict == result.MATCH else ""), found.why
