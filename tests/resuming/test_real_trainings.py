"""Trainings that mmcv 1.x's own runner stops go on in mmengine's as 2.x itself goes on; needs DDQ_MMDET2_REPO."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("mmdet")

from mmengine.registry import DefaultScope

from converters import api
from converters.configs.source import source
from converters.options import Options
from legacy_adapters import registry
from legacy_adapters.families.mmdet2.migration.migration import MIGRATION
from legacy_adapters.family import variant_of_configs
from parity.sides.prepare import seeded_batch

from . import new_runner
from .trainings import BATCHES, SEQUENCE_FIRST, TRAININGS, config_of_2x

REPO = os.environ.get("DDQ_MMDET2_REPO", "")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_MMDET2_REPO is not set (a folder with mmdet 2.x and mmcv 1.x)")
ROUNDING = 2.0**-44  # of rates, which 3.x multiplies from step to step (S2 of docs/mmdet2.md)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train all in 2.x; return the folder and the files of the batches."""
    folder = tmp_path_factory.mktemp("2x")
    batches = [str(folder / f"{number}.safetensors") for number in range(BATCHES)]
    for number, path in enumerate(batches):
        save_file(seeded_batch([(64, 96), (96, 64)], number, 7, divisor=32).to_tensors(), path)
    jobs = []
    for name in TRAININGS:
        config, own = folder / f"{name}.py", folder / name
        config.write_text(config_of_2x(name))
        jobs.append(dict(config=str(config), batches=batches, folder=str(own), log=str(folder / f"{name}.log")))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("legacy_runner.py")
    ran = subprocess.run([sys.executable, script, REPO, folder / "jobs.json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return folder, batches


def written(folder, name):
    """Write the config of 3.x."""
    path = folder / f"{name}.new.py"
    path.write_text(source("", MIGRATION.translate(str(folder / f"{name}.py")).config, {}))
    if TRAININGS[name][0] != "tiny_detr":
        return path
    same_bits = folder / f"{name}.same_bits.py"
    same_bits.write_text(f'_base_ = "{path.name}"\n{SEQUENCE_FIRST}')
    return same_bits


@pytest.mark.parametrize("name", TRAININGS)
def test_the_next_steps_are_those_that_2x_takes(trained, tmp_path, name):
    folder, batches = trained
    config, resumed = written(folder, name), tmp_path / "resumed.pth"
    variant = variant_of_configs(registry.get("mmdet2"), None, "", str(config))
    plan = api.convert_file(folder / name / TRAININGS[name][2], resumed, Options(family="mmdet2", variant=variant)).plan
    new_name = plan.rules.target_of
    steps = {step["step"]: step for step in torch.load(folder / f"{name}.log")}
    names = [key for key in steps[1]["rates"]]
    with DefaultScope.overwrite_default_scope("mmdet"):
        taken = new_runner.go_on(str(config), batches, tmp_path / "3x", str(resumed), list(map(new_name, names)))
    first = plan.meta["iter"] + 1
    assert [step["step"] for step in taken] == list(range(first, 13)) and len(taken) >= 6
    for step in taken:
        old = steps[step["step"]]
        assert_rates(step["rates"], {new_name(key): value for key, value in old["rates"].items()})
        common = [term for term in step["losses"] if term in old["losses"]]
        assert len(common) >= 3 and [step["losses"][term] for term in common] == [old["losses"][term] for term in common]
        averages = {key: tensor for key, tensor in old["weights"].items() if key.startswith("ema_")}
        for key, tensor in old["weights"].items():
            if key not in averages:
                assert torch.equal(step["weights"][new_name(key)], tensor), (step["step"], key)
        for key, state in old["optimizer"].items():
            own = step["optimizer"][new_name(key)]
            assert own.keys() == state.keys() and all(torch.equal(own[part], state[part]) for part in state), key
        assert bool(averages) == bool(step["averages"]) == name.startswith("averaged")
        for key in step["averages"]:
            spelled = "ema_" + key.replace(".", "_")
            if spelled in averages:
                torch.testing.assert_close(step["averages"][key], averages[spelled], rtol=1e-5, atol=1e-7)


def assert_rates(found, expected):
    for name, own in found.items():
        assert math.isclose(own["lr"], expected[name]["lr"], rel_tol=ROUNDING), name
        one, two = torch.tensor(own["momentum"]), torch.tensor(expected[name]["momentum"])
        assert torch.allclose(one, two, rtol=1e-6), name
