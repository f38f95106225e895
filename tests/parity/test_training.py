"""Check train against mmdet 3.3.0's own DDQDETR at tiny width: clean, and with planted errors of the training."""

import json
from dataclasses import replace

import pytest

from converters import families
from parity.compare import Tolerance
from parity.exclusions import EXCLUSIONS
from parity.settings import Machine, Sources, Task
from parity.sides import Sides, prepare
from parity.verdict import MISMATCH, judge

from .conftest import PLANTED, TRAINING_ERRORS

STEPS = ("--check", "train", "--steps", "4", "--epoch-length", "2")


def test_training_matches_in_twin_order(tiny, tmp_path):
    result = tiny(*STEPS, "--json", sizes="64x64")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"]
    assert [step["step"] for step in verdict["steps"]] == [1, 2, 3, 4]
    assert all(step["identical"] == step["records"] > 2000 for step in verdict["steps"])
    found = {stage["name"]: stage["records"] for stage in verdict["stages"]}
    assert found["steps: gradients"] == 4 * 203 and found["steps: optimizer state"] == 4 * 203 * 3
    assert found["steps: settings"] == 4 * 203 * 5 and found["steps: state afterwards"] == 4 * 308
    assert verdict["coverage"]["paired_leaf_calls"] == verdict["coverage"]["legacy_leaf_calls"] > 500
    conditions = verdict["provenance"]["new"]
    assert (conditions["steps"], conditions["clip_order"], conditions["epoch_length"]) == (4, "twin", 2)


def test_training_joins_the_other_checks_and_starts_from_the_same_weights(tiny, tmp_path):
    alone = tiny("--check", "train", "--steps", "1", "--out", tmp_path / "alone", sizes="64x64")
    joined = tiny("--check", "grad,train,forward", "--steps", "1", "--out", tmp_path / "joined", sizes="64x64")
    assert alone.exit_code == joined.exit_code == 0, alone.output + joined.output
    steps = []
    for run in ("alone", "joined"):
        index = json.loads((tmp_path / run / "legacy" / "index.json").read_text())
        steps.append([record for record in index["records"] if record["phase"] == "step 1"])
    assert steps[0] == steps[1] and len(steps[0]) > 2000


@pytest.fixture(scope="module")
def against_legacy(tmp_path_factory):
    """Return a function that trains with an adapter in ``planted`` and judges it; the legacy side trains once."""
    folder = tmp_path_factory.mktemp("training")
    task = Task("mmdet_ddq", "tiny_4scale", ((64, 64),), None, 0, ("train",), 4, 2)
    machine, sources = Machine("cpu", 1, None, 300.0), Sources()
    prepared = prepare(task, sources, machine)
    legacy = Sides(task, sources, machine, prepared, folder).legacy()

    def run(error):
        chosen = replace(sources, new_adapter=PLANTED / f"{error}.py")
        sides = Sides(task, chosen, machine, prepared, folder)
        with sides.passing(sides.new(error, twin=legacy.records)) as new:
            mapping = families.mapping(task.family, task.variant)
            return judge(legacy, new, mapping, EXCLUSIONS[task.family], Tolerance())

    return run


@pytest.mark.parametrize(("error", "where", "says"), TRAINING_ERRORS)
def test_planted_error_is_named_with_its_step(against_legacy, error, where, says):
    verdict = against_legacy(error)
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message


def test_adapter_that_cannot_train_is_told(tiny, tmp_path):
    (tmp_path / "old.py").write_text("from parity.adapters.ddq_port import *\ndel training\n")
    result = tiny(*STEPS, "--new-adapter", tmp_path / "old.py", "-q", sizes="64x64")
    assert result.exit_code == 4 and "has no function `training`" in result.stderr.splitlines()[-1]
