"""What two configs differ in: nothing where they mean the same, and the key of every mistake of a migration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converters.cli.main import cli
from converters.configs.source import source
from legacy_adapters import registry
from legacy_adapters.families.mmdet2.migration.migration import compared, translated
from legacy_adapters.families.mmdet2.migration.reading import read
from tests.mistakes.catalogue import ALL

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "legacy_adapters/families/mmdet2/configs"
OLD = Path(__file__).with_name("old_config.py")
SMALL = sorted(path.stem for path in (CONFIGS / "legacy").glob("*.py"))
IN_CONFIGS = [mistake for mistake in ALL if mistake.change is not None]


@cache
def of_side(side: str, name: str) -> dict[str, Any]:
    return read(str(CONFIGS / side / f"{name}.py"), "2.x" if side == "legacy" else "3.x")


def changed(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which two structures differ; a list that is no list of dicts is one value."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from changed(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and before and isinstance(before[0], dict) and after:
        for number, pair in enumerate(zip(before, after)):
            yield from changed(*pair, f"{path}.{number}")
    elif before != after:
        yield path


@pytest.mark.parametrize("name", SMALL)
def test_the_small_configs_mean_the_same(name):
    found = compared(of_side("legacy", name), of_side("new", name))
    assert found.differences == () and found.compared >= 15


@pytest.mark.parametrize("mistake", IN_CONFIGS, ids=lambda mistake: mistake.name)
def test_the_key_of_a_mistake_is_named(mistake):
    new = deepcopy(of_side("new", mistake.detector))
    mistake.change(new)
    told = compared(of_side("legacy", mistake.detector), new).differences
    for path in changed(of_side("new", mistake.detector), new):
        names = [
            one.key
            for one in told
            if f"{one.key}.".startswith(f"{path}.") or path.startswith(one.key.removesuffix("type"))
        ]
        assert names, (path, told)
    assert all(one.effect for one in told)


def planted(config: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in parents:
        config = config[word]
    if value is None:
        del config[last]
    else:
        config[last] = value


#: What else goes wrong in whole configs: path in the new one -> wrong value (None: it is missing), words of the effect.
_WRONG = {
    "model.data_preprocessor": (None, "neither normalised nor padded"),
    "model.data_preprocessor.mean": ([123.675, 116.28, 103.53], "order of colours"),
    "model.backbone.style": ("pytorch", "every feature is wrong"),
    "model.backbone.init_cfg.checkpoint": ("torchvision://resnet50", "starts from"),
    "model.roi_head.bbox_head.num_classes": (4, "background is not counted"),
    "train_dataloader.batch_size": (2, "another number of images"),
    "train_dataloader.dataset.dataset.filter_cfg": (None, "without objects"),
    "train_dataloader.dataset.dataset.pipeline.2.scales": ([[1333, 800]], "other sizes"),
    "train_dataloader.dataset.dataset.pipeline.4.prob": (0.0, "more or less often"),
    "train_dataloader.dataset.times": (1, "training"),
    "test_dataloader.dataset.pipeline.1.keep_ratio": (False, "stretched"),
    "test_dataloader.dataset.metainfo.classes": (["dog", "cat", "bird"], "label 0 was 'cat' and is 'dog'"),
    "test_dataloader.dataset.metainfo": (None, "index into these names"),
    "val_evaluator.metric": (["segm"], "figures"),
    "train_cfg.max_epochs": (24, "another length"),
    "param_scheduler.0.end": (500, "S1"),
    "param_scheduler.1.milestones": ([5, 8], "other times"),
    "optim_wrapper.clip_grad": (None, "cut off"),
    "custom_hooks": (None, "hook"),
    "custom_hooks.0.momentum": (0.001, "quicker or slower"),
    "auto_scale_lr": (dict(enable=True, base_batch_size=16), "scaled"),
}


@cache
def whole() -> tuple[dict[str, Any], dict[str, Any]]:
    old = read(str(OLD), "2.x")
    return old, translated(deepcopy(old)).config


@pytest.mark.parametrize("path", _WRONG)
def test_the_key_is_named_and_what_it_does(path):
    value, words = _WRONG[path]
    old, new = whole()
    wrong = deepcopy(new)
    planted(wrong, path, value)
    told = compared(old, wrong).differences
    if path == "param_scheduler.0.end":
        assert (told[0].old_key, told[0].written, told[0].old.value) == ("lr_config.warmup_iters", 500, 501)
    assert len(told) == 1 and (told[0].key + ".").startswith(path.rpartition(".")[0]), told
    assert words in told[0].effect, told[0].effect


def test_objects_that_are_resized_in_a_test_are_told():
    old, new = whole()
    wrong = deepcopy(new)
    steps = wrong["test_dataloader"]["dataset"]["pipeline"]
    steps[1], steps[2] = steps[2], steps[1]
    told = compared(old, wrong).differences
    assert [one.key for one in told] == ["test_dataloader.dataset.pipeline"] and "another size" in told[0].effect


def test_an_unknown_setting_is_told_without_a_guess():
    old, new = whole()
    found = compared(dict(old), dict(new, unheard=3, compile=True))
    assert found.differences == ()
    assert any("unheard, compile" in remark.key for remark in found.remarks)


#: 2.28.2's configs and 3.3.0's of the same name -> the keys in which they really differ; docs/migrate.md says why.
_AREA, _WARM_UP = "model.test_cfg.min_bbox_size", "param_scheduler.0.end"
PAIRS = {
    "retinanet/retinanet_r50_fpn_1x_coco retinanet/retinanet_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "faster_rcnn/faster_rcnn_r50_fpn_1x_coco faster_rcnn/faster-rcnn_r50_fpn_1x_coco": {_WARM_UP},
    "mask_rcnn/mask_rcnn_r50_fpn_1x_coco mask_rcnn/mask-rcnn_r50_fpn_1x_coco": {_WARM_UP},
    "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco": {_WARM_UP},
    "fcos/fcos_r50_caffe_fpn_gn-head_1x_coco fcos/fcos_r50-caffe_fpn_gn-head_1x_coco": {_AREA, _WARM_UP},
    "atss/atss_r50_fpn_1x_coco atss/atss_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "gfl/gfl_r50_fpn_1x_coco gfl/gfl_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "paa/paa_r50_fpn_1x_coco paa/paa_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "tood/tood_r50_fpn_1x_coco tood/tood_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "vfnet/vfnet_r50_fpn_1x_coco vfnet/vfnet_r50_fpn_1x_coco": {_AREA, _WARM_UP},
    "detr/detr_r50_8x2_150e_coco detr/detr_r50_8xb2-150e_coco": set(),
    "deformable_detr/deformable_detr_r50_16x2_50e_coco deformable_detr/deformable-detr_r50_16xb2-50e_coco": set(),
    "sparse_rcnn/sparse_rcnn_r50_fpn_1x_coco sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco": {_WARM_UP},
    "swin/mask_rcnn_swin-t-p4-w7_fpn_1x_coco swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco": {_WARM_UP},
    "lvis/mask_rcnn_r50_fpn_sample1e-3_mstrain_1x_lvis_v1 lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1": {_WARM_UP},
    "yolox/yolox_s_8x8_300e_coco yolox/yolox_s_8xb8-300e_coco": {
        "train_dataloader.batch_sampler", "train_cfg.dynamic_intervals", "param_scheduler.1.T_max",
        "test_dataloader.batch_size",
    },
    "ssd/ssd300_coco ssd/ssd300_coco": {
        _AREA, _WARM_UP, "train_dataloader.batch_sampler", "test_dataloader.batch_size",
    },
}  # fmt: skip


@pytest.mark.skipif("DDQ_MMDET2_REPO" not in os.environ, reason="DDQ_MMDET2_REPO names no MMDetection 2.x")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.partition("/")[0])
def test_packaged_configs_differ_in_what_they_differ(pair):
    old, new = pair.split()
    folder = Path(os.environ["DDQ_MMDET2_REPO"]) / "mmdet/.mim/configs"
    found = compared(read(str(folder / f"{old}.py"), "2.x"), read(f"{new}.py", "3.x"))
    assert {one.key for one in found.differences} == PAIRS[pair]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["config", *map(str, arguments)])


def test_the_command_writes_and_compares(tmp_path):
    new = tmp_path / "new.py"
    result = run(OLD, new)
    assert result.exit_code == 0, result.output
    assert (
        "WRITTEN" in result.stdout
        and "it loads and builds" in result.stdout
        and "everything was carried" in result.stdout
    )
    result = run(OLD, new, "--check")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].startswith("SAME: "), result.output
    wrong = tmp_path / "wrong.py"
    wrong.write_text(new.read_text().replace("bgr_to_rgb=False", "bgr_to_rgb=True"))
    result = run(OLD, wrong, "--check")
    assert result.exit_code == 1 and result.stdout.splitlines()[-1].startswith("DIFFERENT: 1 setting differs")
    assert "model.data_preprocessor.bgr_to_rgb" in result.stdout and "to_rgb]" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_command_tells_what_a_program_reads(tmp_path):
    new = tmp_path / "new.py"
    result = run(OLD, new, "--no-build", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and (told["written"], told["builds"], told["faults"]) == (str(new), None, []), (
        result.output
    )
    assert [(one["key"].split(", ")[0], one["why"]) for one in told["remarks"]] == [
        ("norm", "variables of the file, which mmdet 2.x does not read itself")
    ]
    told = json.loads(run(OLD, new, "--check", "--json").stdout)
    assert told["same"] is True and told["differences"] == []
    wrong = tmp_path / "wrong.py"
    wrong.write_text(new.read_text().replace("bgr_to_rgb=False", "bgr_to_rgb=True"))
    result = run(OLD, wrong, "--check", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and [one["key"] for one in told["differences"]] == [
        "model.data_preprocessor.bgr_to_rgb"
    ]
    result = run(OLD, wrong, "--check", "-q")
    assert (
        result.exit_code == 1
        and result.stdout.startswith("DIFFERENT: 1 setting differs")
        and result.stdout.count("\n") == 1
    )


def test_a_config_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    there = tmp_path / "there.py"
    there.write_text("mine = 1\n")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # as it was when that was asked
    result = run(OLD, there, "--no-build")
    assert (
        result.exit_code == 2
        and result.stderr == f"error: {there} exists; name another file. A config is never replaced.\n"
    )
    assert there.read_text() == "mine = 1\n"


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), (), "No family carries configs over."),
        (("mmdet2", "other"), (), "Several families carry configs over, mmdet2, other; pass --family."),
        (
            ("mmdet2",),
            ("--family", "ddq_detr"),
            "Family ddq_detr does not carry configs over; its models are listed by name.",
        ),
    ],
)
def test_the_family_of_a_config_has_to_be_clear(tmp_path, monkeypatch, names, options, message):
    families = [replace(registry.get("mmdet2"), name=name) for name in names]
    monkeypatch.setattr(registry, "every", lambda: families)
    result = run(OLD, tmp_path / "new.py", *options)
    assert result.exit_code == 2 and result.stderr == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_command_replaces_nothing(tmp_path):
    there = tmp_path / "there.py"
    there.write_text("mine = 1\n")
    result = run(OLD, there)
    assert result.exit_code == 2 and "exists" in result.stderr and there.read_text() == "mine = 1\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("none.py", "new.py", "There is no config none.py"),
        (CONFIGS / "new/tiny_retinanet.py", "new.py", "is one of MMDetection 3.x"),
        (OLD, "new.yml", "does not end in .py"),
    ],
    ids=("missing", "of the other version", "no Python"),
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, old, new, words):
    monkeypatch.chdir(tmp_path)
    result = run(old, new)
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_config_is_written_as_it_is():
    config = {
        "a": [dict(type="X", scale=(1, 2)), "ü'\""],
        "b": {"not a name": None, "class": float("inf")},
        "c": (1,),
        "d": {},
    }
    names: dict[str, Any] = {}
    exec(source("one", config, dict(part=config["a"])), names)
    assert {key: names[key] for key in config} == config and names["part"] == config["a"]
