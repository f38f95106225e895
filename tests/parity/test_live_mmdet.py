"""Live runs against mmdet 3.3.0's own DDQDETR at tiny width: clean, replayed, trained, and with planted errors."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parity.traces.trace import Trace
from tests.models import weights_of

from ..warm.execute import Warm
from .conftest import PLANTED_ERRORS


def test_run_matches_and_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = tiny("--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MATCH" and verdict["identical"] == verdict["records"] > 1500
    assert verdict["coverage"]["paired_leaf_calls"] == verdict["coverage"]["legacy_leaf_calls"] > 300
    assert verdict["coverage"]["unaccounted"] == [] and not verdict["coverage"]["gradients_on_one_side"]
    assert verdict["coverage"]["excluded_records"] < 0.02 * verdict["records"]
    images = verdict["detections"]
    assert [(image["matched"], image["legacy"], image["new"], image["score_gap"]) for image in images] == [
        (50, 50, 50, 0.0)
    ] * 2
    assert verdict["decisions"] == [] and not any(verdict["coverage"]["lone_modules"].values())
    assert {"weights", "training: losses", "training: gradients", "training: random draws"} <= {
        stage["name"] for stage in verdict["stages"]
    }
    assert list(tmp_path.iterdir()) == []


def test_decisions_are_not_degenerate(tiny, tmp_path):
    result = tiny("--check", "forward", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    trace = Trace.load(tmp_path / "run" / "legacy")
    taps = [r for r in trace.records if (r.phase, r.kind, r.name) == ("predict", "tap", "distinct")]
    kept = [r.shape[0] for r in taps]
    # two images: 60 queries each from the encoder, then fewer after each of two decoder layers
    assert kept[:2] == [60, 60] and len(kept) == 6 and max(kept[2:]) < 60
    # query 0 survives in some selections and is dropped in others: both branches of the legacy mask rule run
    decoder = taps[2:]
    assert {bool((trace.tensor(r) == 0).any()) for r in decoder} == {True, False}


def test_audit_lists_the_decisions_of_every_phase(tiny, parity, tmp_path):
    assert tiny("--out", tmp_path / "run", "-q").exit_code == 0
    result = parity("audit", tmp_path / "run" / "new", "--json")
    assert result.exit_code == 0, result.output
    decisions = json.loads(result.stdout)["decisions"]
    counts = Counter((decision["phase"], decision["name"]) for decision in decisions)
    assert counts == {
        ("predict", "distinct"): 6, ("predict", "detections"): 2, ("train", "distinct"): 6, ("train", "dense"): 2,
        ("train", "match"): 8, ("train", "dense_match"): 8,
        # made-up logits, other ways of inference, made-up boxes
        ("labels", "distinct"): 6, ("labels", "detections"): 2, ("unscaled", "distinct"): 6,
        ("unscaled", "detections"): 2, ("tensor", "distinct"): 6, ("nms", "distinct"): 2,
    }  # fmt: skip
    assert all(decision["ways"] and not decision["fault"] for decision in decisions)
    # the other side made the same decisions on the same numbers
    legacy = parity("audit", tmp_path / "run" / "legacy", "--json")
    assert json.loads(legacy.stdout)["decisions"] == decisions


@pytest.mark.parametrize(
    ("error", "check", "quantity", "says"),
    [
        ("threshold_of_selection", "forward", "IoU", "iou_threshold differs by 0.3"),
        ("ascending_dense", "loss", "score", "it breaks the rule on its own numbers"),
        ("fewer_detections", "forward", "length", "no tie"),
    ],
)
def test_wrong_decision_is_told_by_its_margin(tiny, error, check, quantity, says, planted):
    result = tiny("--check", check, "--new-adapter", planted(error), "--json")
    decision = json.loads(result.stdout)["first_divergence"]["decision"]
    assert not decision["explained"] and decision["reading"].endswith(says) and decision["witness"]
    assert quantity in {trial["quantity"] for trial in decision["trials"] if not trial["is_tie"]}


def test_replayed_decisions_match_too(tiny, tmp_path):
    result = tiny("--replay", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    bundle = load_file(tmp_path / "run" / "decisions.safetensors")
    assert {key.split("/")[1] for key in bundle} >= {"distinct", "dense", "match", "dense_match", "detections"}
    assert result.stdout.splitlines()[-1].endswith("legacy decisions and draws replayed")
    provenance = json.loads((tmp_path / "run" / "new" / "index.json").read_text())["provenance"]
    assert provenance["replayed"] is True


def test_checkpoint_saved_after_training_with_its_duplicates(tiny, tmp_path):
    weights = weights_of("tiny_4scale", 3, side="legacy")
    duplicates = {k.replace("bbox_head.", "decoder."): v for k, v in weights.items() if "aux_reg_branches" in k}
    torch.save({"meta": {}, "state_dict": {**weights, **duplicates}}, tmp_path / "trained.pth")
    result = tiny("--check", "forward", "--checkpoint", tmp_path / "trained.pth", "-q")
    assert result.exit_code == 0, result.output


def test_replayed_draws_do_not_hide_that_the_port_seeds_anew(tiny, planted):
    result = tiny("--replay", "--check", "loss", "--json", "--new-adapter", planted("reseeds"))
    verdict = json.loads(result.stdout)
    assert result.exit_code == 1 and verdict["first_divergence"]["where"] == "backbone"


def test_batches_that_were_used_are_told_and_differ(tiny):
    result = tiny("--check", "loss", "--json")
    used = {side: told["batch_sizes"] for side, told in json.loads(result.stdout)["provenance"].items()}
    assert used["legacy"] == used["new"] and used["new"]["predict"] == [[128, 160], [96, 128]]
    assert used["new"]["train"] == [[159, 119], [127, 87]]


@pytest.mark.parametrize(("error", "check", "where"), PLANTED_ERRORS)
def test_planted_error_exits_1_and_names_where_it_starts(tiny, error, check, where, planted):
    result = tiny("--check", check, "--new-adapter", planted(error), "--json")
    assert result.exit_code == 1, result.output
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "MISMATCH"
    assert verdict["first_divergence"]["where"] == where
    assert verdict["summary"].startswith("MISMATCH") and verdict["summary"].endswith(f"First at {where}.")


@pytest.mark.parametrize(
    "error", ["threshold_of_selection", "ascending_dense", "fewer_dense", "fewer_detections", "label_range_short"]
)
def test_replay_does_not_hide_a_wrong_decision_or_request(tiny, error, planted):
    result = tiny("--replay", "--new-adapter", planted(error), "-q")
    assert result.exit_code == 1, result.output


@pytest.mark.parametrize(
    "arguments",
    [("--size", "32x32,48x32", "--objects", "0,20"), ("--size", "96x128", "--objects", "1")],
    ids=["fewer tokens than queries, no and many objects", "one image with one object"],
)
def test_edge_case(tiny, arguments):
    result = tiny(*arguments, "-q")
    assert result.exit_code == 0, result.output


def test_legacy_side_is_recorded_once_for_all_tests_whatever_is_compared_with_it(tiny, planted, monkeypatch):
    jobs, run = [], Warm.run
    monkeypatch.setattr(Warm, "run", lambda warm, *args: (jobs.append(Path(args[0][-1]).name), run(warm, *args))[1])
    for adapter in ((), ("--new-adapter", planted("changed_state")), ("--new-adapter", planted("eps_layer_norm"))):
        assert tiny("--check", "loss", *adapter, sizes="64x64").exit_code == bool(adapter)
    assert Counter(jobs)["legacy.job.json"] <= 1 < Counter(jobs)["new.job.json"]


def test_fixed_tolerance_accepts_what_it_says(tiny, planted):
    loose = tiny("--check", "forward", "--new-adapter", planted("eps_layer_norm"), "--replay", "--tolerance",
                 "fixed", "--rtol", "1e-2", "--atol", "1e-1", "-q")  # fmt: skip
    assert loose.exit_code == 0, loose.output
    assert "within fixed tolerance" in loose.stdout


def test_float64_on_both_sides(tiny):
    result = tiny("--dtype", "float64", "--json")
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)
    assert verdict["identical"] == verdict["records"] > 1500
    assert {side["dtype"] for side in verdict["provenance"].values()} == {"float64"}


@pytest.mark.parametrize("variant", ["tiny_5scale", "tiny_swinl", "tiny_r18", "tiny_1class"])
def test_other_variants(parity, variant):
    result = parity("run", "--family", "mmdet_ddq", "--variant", variant, "-q")
    assert result.exit_code == 0, result.output


def test_derived_tolerance_finds_what_exact_finds(tiny, planted):
    adapter = planted("eps_layer_norm")
    arguments = ("--tolerance", "derived", "--check", "forward", "--new-adapter", adapter, "--json")
    result = tiny(*arguments, sizes="64x96,96x64")
    assert result.exit_code == 1, result.output
    verdict = json.loads(result.stdout)
    assert verdict["first_divergence"]["where"] == "decoder.norm"
    assert "float64" in verdict["first_divergence"]["record"]["note"]


def test_table_fits_80_columns_and_closes_with_the_verdict(tiny, planted):
    result = tiny("--check", "loss", "--new-adapter", planted("eps_inverse_sigmoid"))
    table = result.stdout.splitlines()
    assert max(len(line) for line in table[:-1]) <= 80
    assert table[-1].startswith("MISMATCH ")
