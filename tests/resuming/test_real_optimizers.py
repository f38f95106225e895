"""Optimizers that mmcv 1.x's own constructors make of real models of 2.x keep every setting and state; needs DDQ_MMDET2_REPO."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmdet")

from converters import api
from converters.configs.source import source
from converters.options import Options
from legacy_adapters import mmdet3, registry
from legacy_adapters.families.mmdet2.migration.migration import MIGRATION
from legacy_adapters.family import variant_of_configs

from .trainings import CONFIGS

REPO = os.environ.get("DDQ_MMDET2_REPO", "")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_MMDET2_REPO is not set (a folder with mmdet 2.x and mmcv 1.x)")
ONE = 'runner = dict(type="EpochBasedRunner", max_epochs=4)\nlr_config = dict(policy="step", step=[3])\n'
#: Name -> model, optimizer.
CASES = {
    "one group, shared branches": ("tiny_deformable", 'dict(type="AdamW", lr=2e-4, weight_decay=1e-4)'),
    "custom keys, shared branches": (
        "tiny_deformable",
        'dict(type="AdamW", lr=2e-4, weight_decay=1e-4, paramwise_cfg=dict(custom_keys=dict('
        "backbone=dict(lr_mult=0.1), sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1))))",
    ),
    "names of 2.x in custom keys": (
        "tiny_detr",
        'dict(type="Adam", lr=1e-4, weight_decay=1e-4, amsgrad=True, paramwise_cfg=dict(custom_keys=dict('
        '{"bbox_head.transformer": dict(lr_mult=0.5), "norms": dict(decay_mult=0.0)})))',
    ),
    "norms and biases": (
        "tiny_mask_rcnn",
        'dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4, nesterov=True, '
        "paramwise_cfg=dict(norm_decay_mult=0.0, bias_lr_mult=2.0, bias_decay_mult=0.0))",
    ),
    "duplicates, another optimizer": (
        "tiny_yolox",
        'dict(type="RMSprop", lr=0.01, momentum=0.5, alpha=0.95, weight_decay=1e-4, '
        "paramwise_cfg=dict(norm_decay_mult=0.0, dwconv_decay_mult=0.5, bypass_duplicate=True))",
    ),
    "a state of everything": ("tiny_atss", 'dict(type="Adagrad", lr=0.01, weight_decay=1e-4)'),
    "no state": ("tiny_fcos", 'dict(type="SGD", lr=0.01, paramwise_cfg=dict(bias_lr_mult=2.0, custom_keys=dict(neck=dict(lr_mult=0.1))))'),
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("2x")
    for name, (model, optimizer) in CASES.items():
        text = (CONFIGS / "legacy" / f"{model}.py").read_text("utf-8")
        (folder / f"{name}.py").write_text(f"{text}\noptimizer = {optimizer}\n{ONE}")
    (folder / "jobs.json").write_text(json.dumps([str(folder / f"{name}.py") for name in CASES]))
    script = Path(__file__).with_name("optimizers_of_2x.py")
    ran = subprocess.run([sys.executable, script, REPO, folder, folder / "jobs.json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_keeps_its_settings_and_its_state(written, name):
    new = written / f"{name}.new.py"
    new.write_text(source("", MIGRATION.translate(str(written / f"{name}.py")).config, {}))
    options = Options(family="mmdet2", variant=variant_of_configs(registry.get("mmdet2"), None, "", str(new)))
    plan = api.convert_file(written / f"{name}.pth", written / f"{name}.new.pth", options).plan
    config = mmdet3.load_config(str(new))
    model = mmdet3.build_from(config)
    wrapper = mmdet3.optimizer_wrapper(model, config)
    made = torch.load(written / f"{name}.new.pth", weights_only=True)
    model.load_state_dict(made["state_dict"])
    wrapper.load_state_dict(made["optimizer"])
    told = {plan.rules.target_of(key): value for key, value in json.loads((written / f"{name}.json").read_text()).items()}
    trained = {key: param for key, param in model.named_parameters() if param.requires_grad}
    assert told.keys() == trained.keys()
    groups = {id(param): group for group in wrapper.optimizer.param_groups for param in group["params"]}
    for key, param in trained.items():
        settings = {part: list(value) if isinstance(value, tuple) else value for part, value in groups[id(param)].items()}
        assert {part: settings.get(part) for part in told[key]["settings"]} == told[key]["settings"], key
        state = wrapper.optimizer.state.get(param, {})
        assert {part: value.double().sum().item() for part, value in state.items() if torch.is_tensor(value)} == told[key]["state"]
