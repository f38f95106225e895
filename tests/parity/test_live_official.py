"""Runs against the real official repo; set DDQ_LEGACY_REPO to a checkout of jshilong/DDQ, branch ddq_detr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from converters.cli.main import cli
from ddq_port import configs
from parity.golden import golden
from parity.sides.prepare import seeded_batch
from parity.verdict.verdict import MATCH, MISMATCH
from tests.models import GOLDEN, NEW_ADAPTER, weights_of

from .conftest import (
    PLANTED_ERRORS,
    RANK_ERRORS,
    TRAINING_ERRORS,
    assert_every_rank_matches,
    ranks_judge,
    resumed_by_legacy,
    training_judge,
)

REPO = os.environ.get("DDQ_LEGACY_REPO", "")
pytestmark = pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")


@pytest.fixture
def official(parity):
    """Return a function that runs a variant of the official repo against the port."""

    def call(*arguments, variant="tiny_4scale"):
        return parity("run", "--family", "ddq_detr", "--variant", variant, "--legacy-repo", REPO, *arguments, "--json")

    return call


def assert_complete_match(result):
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"] > 1500
    coverage = verdict["coverage"]
    assert coverage["paired_leaf_calls"] == coverage["legacy_leaf_calls"] > 300
    assert coverage["unaccounted"] == [] and coverage["gradients_on_one_side"] == []
    return verdict


@pytest.mark.parametrize("seed", [0, 7])
def test_padded_batch_of_two_sizes(official, seed):
    assert_complete_match(official("--size", "128x160,96x128", "--seed", seed))


@pytest.mark.parametrize("variant", ["tiny_4scale", "tiny_5scale", "tiny_swinl"])
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_inference_under_autocast_has_the_same_bits(official, variant, amp):
    verdict = json.loads(official("--check", "forward", "--amp", amp, "--size", "64x96,96x64", variant=variant).stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"] > 1500


def test_losses_under_autocast_are_not_comparable(official):
    result = official("--check", "loss", "--amp", "bf16", "--size", "64x96,96x64")
    verdict = json.loads(result.stdout)
    assert result.exit_code == 3 and "cannot compute losses under bf16 autocast" in verdict["summary"]
    assert verdict["autocast"]["compared"] == [] and verdict["autocast"]["drifts"]


def test_single_image_without_padding(official):
    assert_complete_match(official("--size", "160x128"))


def test_fewer_tokens_than_queries(official):
    assert_complete_match(official("--size", "32x32"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "128x160,96x128", "--objects", "0,3"),
        ("--size", "128x160,96x128", "--objects", "0,0"),
        ("--size", "96x128", "--objects", "1"),
        ("--size", "128x128", "--objects", "40"),
        ("--size", "48x640", "--objects", "2"),
        ("--size", "640x48", "--objects", "2"),
        ("--size", "616x768"),
        ("--size", "640x800"),
        ("--size", "128x160,96x128", "--dtype", "float64"),
    ],
    ids=[
        "image without objects",
        "batch without objects",
        "one object",
        "more objects than groups",
        "wide",
        "tall",
        "9,864 tokens",
        "10,630 tokens",
        "float64",
    ],
)
def test_edge_case(official, arguments):
    assert_complete_match(official(*arguments))


@pytest.mark.parametrize("variant", ["tiny_5scale", "tiny_swinl", "tiny_r18", "tiny_1class"])
def test_variant(official, variant):
    assert_complete_match(official("--size", "128x160,96x128", variant=variant))


def test_derived_tolerance(official):
    assert_complete_match(official("--size", "96x128", "--tolerance", "derived"))


def test_golden_file_is_recorded_again_with_the_same_records(parity, tmp_path):
    again = tmp_path / "again.npz"
    arguments = ("--family", "ddq_detr", "--variant", "tiny_4scale", "--legacy-repo", REPO)
    recorded = golden.load(GOLDEN).provenance
    here = dict(
        torch=torch.__version__, threads=torch.get_num_threads(), cpu_capability=torch.backends.cpu.get_cpu_capability()
    )
    for name, value in here.items():
        if recorded[name] != value:
            pytest.skip(f"the golden file was recorded with {name} {recorded[name]}, here it is {value}")
    result = parity("capture", again, *arguments, "--size", "128x160,96x128", "-q")
    assert result.exit_code == 0, result.output
    assert golden.load(again).records == golden.load(GOLDEN).records


def test_replayed_decisions(official):
    assert_complete_match(official("--size", "128x160,96x128", "--replay"))


def test_provenance_proves_that_the_repos_own_code_ran(official):
    legacy = assert_complete_match(official("--size", "64x64"))["provenance"]["legacy"]
    versions = {name: module["version"] for name, module in legacy["modules"].items()}
    assert versions == {"mmdet": "3.0.0rc6", "mmcv": "2.0.0rc4", "mmengine": "0.6.0", "projects": ""}
    assert all(Path(module["file"]).is_relative_to(Path(REPO).resolve()) for module in legacy["modules"].values())
    assert legacy["commit"] == "80c7d5f"


def test_training_of_50_steps_is_bit_identical_in_twin_order(official):
    arguments = ("--size", "128x160,96x128", "--check", "train", "--steps", "50", "--epoch-length", "20")
    verdict = assert_complete_match(official(*arguments))
    assert [step["step"] for step in verdict["steps"]] == list(range(1, 51))
    assert all(step["identical"] == step["records"] > 2000 for step in verdict["steps"])
    groups = {side: (p["optimizer_groups"], p["frozen_in_groups"]) for side, p in verdict["provenance"].items()}
    assert groups == {"legacy": (347, 117), "new": (230, 0)}  # two versions of mmengine


def test_training_in_own_order_parts_at_the_norm_and_is_within_derived_tolerance(official):
    arguments = ("--size", "128x160,96x128", "--check", "train", "--steps", "8", "--clip-order", "own")
    exact = json.loads(official(*arguments).stdout)
    if exact["verdict"] != "MATCH":  # the last bit of a sum is a property of the machine, too
        assert exact["first_divergence"]["where"] == "gradient clipping"
    derived = official(*arguments[:-3], "2", "--clip-order", "own", "--tolerance", "derived")
    assert derived.exit_code == 0, derived.output
    assert json.loads(derived.stdout)["provenance"]["new"]["forced"] is True


@pytest.mark.parametrize("variant", ["tiny_5scale", "tiny_swinl", "tiny_r18", "tiny_1class"])
def test_training_of_a_variant(official, variant):
    assert_complete_match(official("--check", "train", "--steps", "3", variant=variant))


@pytest.mark.parametrize(
    ("variant", "groups"),
    [("tiny_4scale", (347, 230)), ("tiny_5scale", (251, 206)), ("tiny_swinl", (311, 311))],
    ids=["tiny_4scale", "tiny_5scale", "tiny_swinl"],
)
def test_training_stopped_in_the_official_code_goes_on_in_the_port(official, variant, groups):
    resumed = ("--check", "train", "--steps", "5", "--epoch-length", "2", "--resume-at", "3")
    verdict = assert_complete_match(official("--size", "128x160,96x128", *resumed, variant=variant))
    told = verdict["provenance"]
    assert tuple(told[side]["optimizer_groups"] for side in ("legacy", "new")) == groups
    assert told["new"]["resumed"] and [step["step"] for step in verdict["steps"]] == [3, 4, 5]


def test_training_stopped_in_the_port_goes_on_in_the_official_code(tmp_path):
    verdict = resumed_by_legacy(tmp_path, "ddq_detr", Path(REPO))
    assert verdict.outcome == MATCH, verdict.reasons
    assert verdict.provenance["legacy"]["resumed"] and verdict.provenance["legacy"]["optimizer_groups"] == 347


@pytest.fixture(scope="module")
def trained_against(tmp_path_factory):
    return training_judge(tmp_path_factory.mktemp("training"), "ddq_detr", Path(REPO))


@pytest.mark.parametrize(("error", "where", "says"), TRAINING_ERRORS)
def test_planted_error_of_training_is_named_with_its_step(trained_against, planted, error, where, says):
    verdict = trained_against(planted(error))
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message


@pytest.fixture(scope="module")
def ranks_against(tmp_path_factory):
    return ranks_judge(tmp_path_factory.mktemp("ranks"), "ddq_detr", Path(REPO))


def test_two_ranks(ranks_against):
    assert_every_rank_matches(ranks_against(NEW_ADAPTER))


@pytest.mark.parametrize(("error", "where", "says"), RANK_ERRORS)
def test_planted_error_of_ranks_is_named_with_step_and_rank(ranks_against, error, where, says, planted):
    verdict = ranks_against(planted(error))
    assert verdict.outcome == MISMATCH
    assert verdict.divergence.where == where and says in verdict.divergence.message


@pytest.mark.parametrize(("error", "check", "where"), PLANTED_ERRORS)
def test_planted_error_exits_1_and_names_where_it_starts(official, error, check, where, planted):
    result = official("--size", "128x160,96x128", "--check", check, "--new-adapter", planted(error))
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["first_divergence"]["where"] == where


@pytest.fixture
def trained(tmp_path):
    """Train the official tiny model for one step; return the checkpoint its Runner would save."""
    save_file(weights_of("tiny_4scale", 0, side="legacy"), tmp_path / "weights.safetensors")
    save_file(seeded_batch([(128, 160), (96, 128)], 0, 3).to_tensors(), tmp_path / "inputs.safetensors")
    script = Path(__file__).with_name("legacy_training_step.py")
    overrides = configs.path("ddq-detr-4scale_tiny")
    files = [tmp_path / "weights.safetensors", tmp_path / "inputs.safetensors", tmp_path / "iter_1.pth"]
    subprocess.run([sys.executable, script, REPO, overrides, *files], check=True, cwd=tmp_path, capture_output=True)
    return tmp_path / "iter_1.pth"


def convert(*arguments):
    return CliRunner().invoke(cli, ["convert", *(str(argument) for argument in arguments)])


def test_checkpoint_of_a_training_step_converts_and_matches(official, trained, tmp_path):
    result = convert(trained, tmp_path / "new.safetensors")
    assert result.exit_code == 0 and "18 duplicates dropped" in result.stdout, result.output
    assert_complete_match(official("--size", "128x160,96x128", "--checkpoint", trained))


def test_checkpoint_with_a_duplicate_that_differs_is_refused_by_name(trained, tmp_path):
    content = torch.load(trained, weights_only=False)
    key = "decoder.aux_reg_branches.1.2.bias"
    content["state_dict"][key] = content["state_dict"][key] + 1
    torch.save(content, tmp_path / "differs.pth")
    result = convert(tmp_path / "differs.pth", tmp_path / "new.pth")
    assert result.exit_code == 1 and key in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "new.pth").exists()
