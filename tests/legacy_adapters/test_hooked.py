"""Training with an adapter's help is training with mmcv 1.x's own runner, bit by bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = os.environ.get("DDQ_MMDET2_REPO", "")
CASES = ("step", "not_clipped", "linear", "exponential", "constant", "by_step", "accumulated", "momentum")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_MMDET2_REPO is not set (a folder with mmdet 2.x and mmcv 1.x)")


@pytest.fixture(scope="module")
def told():
    script = Path(__file__).with_name("hooked_runner.py")
    ran = subprocess.run([sys.executable, str(script), REPO], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.rpartition("told ")[2])


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_the_runner(told, case):
    assert told.keys() == set(CASES)
    assert told[case]["seen"] == told[case]["rates"] and len(told[case]["seen"]) == 9
    assert len({json.dumps(rates) for rates in told[case]["seen"]}) > 1, "the schedule does nothing"
    assert told[case]["same_weights"]


def test_machinery_is_called_what_mmengine_calls_it(told):
    assert told["step"]["wrapper"] == {"class": "OptimWrapper", "accumulative_counts": 1}
    assert told["accumulated"]["wrapper"] == {"class": "OptimWrapper", "accumulative_counts": 2}


@pytest.mark.parametrize("case", ["step", "linear", "by_step", "momentum"])
def test_a_training_that_is_stopped_and_resumed_ends_with_the_same_weights(told, case):
    assert told[case]["resumed"] and all(told[case]["resumed"])
