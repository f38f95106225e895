"""Check train against mmdet 3.3.0's own DDQDETR at tiny width: clean, and with planted errors of the training."""

import json

import pytest

from legacy_adapters.recording.trace_writer import sealed
from parity.verdict.verdict import MATCH, MISMATCH
from tests.models import NEW_ADAPTER

from .conftest import TRAINING_ERRORS, training_judge

STEPS = ("--check", "train", "--steps", "4", "--epoch-length", "2")


def test_training_matches_in_twin_order(tiny, tmp_path):
    result = tiny(*STEPS, "--json", sizes="64x64")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"]
    assert [step["step"] for step in verdict["steps"]] == [1, 2, 3, 4]
    assert all(step["identical"] == step["records"] > 2000 for step in verdict["steps"])
    found = {stage["name"]: stage["records"] for stage in verdict["stages"]}
    assert found["steps: gradients"] == 4 * 230 and found["steps: optimizer state"] == 4 * 230 * 3
    assert found["steps: settings"] == 4 * (230 * 5 + 3) and found["steps: state afterwards"] == 4 * 506
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
        records = [record for record in index["records"] if record["phase"] == "step 1"]
        # mmengine keeps the names of meta information as a set, in another order in every process
        steps.append(sorted(records, key=lambda record: [record[name] for name in ("kind", "name", "call", "slot")]))
    assert steps[0] == steps[1] and len(steps[0]) > 2000


def test_kept_traces_of_a_training_are_compared_again(tiny, parity, tmp_path):
    assert tiny(*STEPS, "--out", tmp_path / "run", sizes="64x64").exit_code == 0
    sides = (tmp_path / "run" / "legacy", tmp_path / "run" / "new")
    again = parity("compare", *sides, "--family", "mmdet_ddq", "--variant", "tiny_4scale")
    assert again.exit_code == 0 and "4 training steps, in epochs of 2;" in again.stdout
    index = sides[1] / "index.json"
    index.write_text(json.dumps(sealed(json.loads(index.read_text().replace('"clip_order":"twin"', '"clip_order":"own"')))))
    other = parity("compare", *sides, "--family", "mmdet_ddq", "--variant", "tiny_4scale")
    assert other.exit_code == 3 and "clip_order is twin on the legacy side and own on the new one" in other.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return training_judge(tmp_path_factory.mktemp("training"), "mmdet_ddq")


@pytest.mark.parametrize(("error", "where", "says"), TRAINING_ERRORS)
def test_planted_error_is_named_with_its_step(trained, planted, error, where, says):
    verdict = trained(planted(error))
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message


def test_same_comparison_without_an_error_matches(trained):
    assert trained(NEW_ADAPTER).outcome == MATCH


def test_adapter_that_cannot_train_is_told(tiny, tmp_path):
    (tmp_path / "old.py").write_text("from parity.adapters.ddq_port import *\ndel training\n")
    result = tiny(*STEPS, "--new-adapter", tmp_path / "old.py", "-q", sizes="64x64")
    assert result.exit_code == 2
    assert "has no function training(model, options, epoch_length)" in result.stderr.splitlines()[-1]
