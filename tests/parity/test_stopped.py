"""A new side that crashes: what it recorded until then is judged, and names the place where it went wrong."""

import json

import pytest

from legacy_adapters.launch import SideError
from parity.sides.stopped import recorded_by
from tests.models import GOLDEN

from .synthetic import NAN, Rec, judged, write_trace

NAN_FAULTS = [
    ("nan_in_encoder", "encoder.layers.1.ffn", "the detector (the predict phase): ValueError: "),
    ("nan_in_decoder", "decoder.layers.0.cross_attn", "`decoder` (the predict phase): ValueError: "),
    ("nan_in_loss", "bbox_head.loss_bbox", ""),
]
STOPPED = dict(error="ValueError: no", place="`a` (the train phase)", traceback="line 1\nline 2")


@pytest.mark.parametrize(("error", "where", "stopped"), NAN_FAULTS)
@pytest.mark.parametrize("how", [(), ("--tolerance", "derived"), ("--isolate",)])
def test_module_that_makes_nan_is_named(tiny, error, where, stopped, how, planted):
    adapter = planted(error)
    result = tiny("--threads", "1", "--check", "forward,grad", "--new-adapter", adapter, *how, sizes="64x96,96x64")
    assert result.exit_code == 1, result.output + result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.endswith(f"First at {where}.")
    assert (f"The new side stopped in {stopped}" in last) is bool(stopped)


@pytest.mark.parametrize(("error", "where", "stopped"), NAN_FAULTS)
def test_module_that_makes_nan_in_a_step_of_a_training_is_named(tiny, error, where, stopped, planted):
    adapter = planted(error)
    result = tiny("--threads", "1", "--new-adapter", adapter, "--check", "train", "--steps", "1", sizes="64x96")
    assert result.exit_code == 1, result.output + result.stderr
    assert f"In step 1 `{where}` (call 0) makes NaN of finite numbers." in " ".join(result.stdout.split())
    assert result.stdout.splitlines()[-1].endswith(f"First at {where}.")


@pytest.mark.parametrize(("error", "where", "stopped"), NAN_FAULTS)
def test_module_that_makes_nan_is_named_against_a_golden_file(parity, error, where, stopped, planted):
    result = parity("check", GOLDEN, "--threads", "1", "--new-adapter", planted(error))
    assert result.exit_code == 1 and result.stdout.splitlines()[-1].endswith(f"First at {where}."), result.output


def test_crash_behind_a_difference_is_told_with_the_difference(tiny, tmp_path, parity, planted):
    adapter = planted("wrong_shape")
    arguments = ("--threads", "1", "--check", "forward,grad", "--new-adapter", adapter, "--out", tmp_path / "run")
    result = tiny(*arguments, "--json", sizes="64x96,96x64")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["first_divergence"]["where"] == "encoder.layers.1.norms.0"
    place = told["stopped"]["place"]
    assert place.startswith("`encoder.layers.1.") and place.endswith("` (the predict phase)")
    assert told["stopped"]["error"].startswith("RuntimeError: ") and "Traceback" in told["stopped"]["traceback"]
    again = parity("compare", tmp_path / "run" / "legacy", tmp_path / "run" / "new", "--family", "mmdet_ddq",
                   "--variant", "tiny_4scale", "-q")  # fmt: skip
    assert again.exit_code == 1 and f"The new side stopped in {place}" in again.stdout


@pytest.mark.parametrize("how", [(), ("--isolate",), ("--tolerance", "derived")])
def test_crash_without_a_difference_before_it_is_a_crash_with_its_place(tiny, how, planted):
    adapter = planted("crash_in_encoder")
    result = tiny("--threads", "1", "--check", "forward,grad", "--new-adapter", adapter, *how, sizes="64x96,96x64")
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == (
        "error: The new side crashed in `encoder.layers.1.norms.0` (the predict phase): RuntimeError: "
        "Sizes do not fit: expected 64"
    )


def two(folder, legacy, new, on_legacy=None, on_new=None):
    """Judge two hand-written sides."""
    return judged(folder, legacy, new, on_legacy=on_legacy, on_new=on_new)


def test_what_a_stopped_side_had_no_time_for_is_not_missing(tmp_path):
    start = [Rec("module_in", "a", slot="x"), Rec("module_out", "a")]
    rest = [Rec("module_in", "b", slot="x"), Rec("module_out", "b"), Rec("loss", "total")]
    verdict = two(tmp_path, start + rest, start, on_new={"stopped": STOPPED})
    assert verdict.outcome == "INCOMPARABLE" and verdict.divergence is None and not verdict.coverage.unaccounted
    assert verdict.reasons == ("The new side stopped in `a` (the train phase): ValueError: no.",)


def test_argument_that_a_stopped_side_did_not_give_is_missing(tmp_path):
    mask = Rec("module_in", "a", [0.25, 0.75], "mask")  # not a number, which one side alone may pass
    given = [Rec("module_in", "a", slot="x"), mask, Rec("module_out", "a")]
    verdict = two(tmp_path, [*given, Rec("loss", "total")], given[:1], on_new={"stopped": STOPPED})
    assert verdict.outcome == "MISMATCH" and verdict.divergence.where == "the detector"
    assert "without `mask`" in verdict.divergence.message


def test_longer_ranking_before_the_stop_is_told(tmp_path):
    def ranked(best):
        scores = Rec("basis", "dense", [0.5, 0.75, 0.25], "scores")
        return [Rec("module_out", "a"), scores, Rec("tap", "dense", best, "indices")]

    rest = [Rec("module_out", "b"), Rec("loss", "total")]
    verdict = two(tmp_path, [*ranked([1]), *rest], ranked([1, 0]), on_new={"stopped": STOPPED})
    assert verdict.outcome == "MISMATCH" and "`dense`" in verdict.divergence.message


def test_stopped_legacy_side_proves_nothing(tmp_path):
    legacy = [Rec("module_out", "a"), Rec("module_out", "b")]
    verdict = two(tmp_path, legacy, legacy, on_legacy={"stopped": STOPPED})
    assert verdict.outcome == "INCOMPARABLE"
    assert verdict.reasons == ("The legacy side stopped in `a` (the train phase): ValueError: no.",)


@pytest.mark.parametrize(
    ("entry", "where", "message"),
    [
        (["step 1", "a.b", "a.b", 2, "NaN"], "a.b", "In step 1 `a.b` (call 2) makes NaN of finite numbers."),
        (["step 1", "", "a.b", 0, "Inf"], "the detector", "In step 1 the code of the detector gives Inf to `a.b`."),
    ],
)
def test_first_result_that_is_not_finite_on_the_new_side_alone_is_blamed(tmp_path, entry, where, message):
    legacy, new = ([Rec("loss", "total", value, phase="step 1")] for value in (1.0, NAN))
    usual = ["step 1", "c", "c", 0, "Inf"]
    verdict = two(tmp_path, legacy, new, dict(not_finite=[usual]), dict(not_finite=[usual, entry]))
    assert (verdict.divergence.where, verdict.divergence.message) == (where, message)


def test_later_result_that_is_not_finite_is_not_blamed_for_what_differs_before(tmp_path):
    legacy = [Rec("setting", "p", 1.0, "lr", phase="step 1"), Rec("loss", "total", 1.0, phase="step 2")]
    new = [Rec("setting", "p", 2.0, "lr", phase="step 1"), Rec("loss", "total", NAN, phase="step 2")]
    verdict = two(tmp_path, legacy, new, None, dict(not_finite=[["step 2", "a", "a", 0, "NaN"]]))
    assert verdict.divergence.where == "the schedule"


def test_a_crash_that_no_recording_tells_of_stays_a_crash(tmp_path):
    def crashes():
        raise SideError("new", "killed", "")

    with pytest.raises(SideError, match="killed"):
        recorded_by(crashes, tmp_path / "none")
    write_trace(tmp_path / "whole", Rec("module_out", "a"))
    with pytest.raises(SideError, match="killed"):
        recorded_by(crashes, tmp_path / "whole")
    write_trace(tmp_path / "stopped", Rec("module_out", "a"), stopped=STOPPED)
    assert recorded_by(crashes, tmp_path / "stopped").provenance["stopped"] == STOPPED
    assert len(recorded_by(lambda: None, tmp_path / "whole").records) == 1


def test_result_that_is_not_finite_is_blamed_for_a_stop_though_all_records_before_are_equal(tmp_path):
    both = [Rec("module_out", "a")]
    verdict = two(tmp_path, both, both, None, dict(stopped=STOPPED, not_finite=[["train", "b.c", "b.c", 0, "NaN"]]))
    assert (verdict.divergence.where, verdict.divergence.comparison) == ("b.c", None)
    assert verdict.divergence.message == "In train `b.c` (call 0) makes NaN of finite numbers."


@pytest.mark.parametrize(("what", "more"), [
    ("NaN", ["Degenerate: the legacy side stopped after `b.c` gave NaN in phase train. Give other weights or inputs."]),
    ("Inf", []),
])  # fmt: skip
def test_nan_before_the_legacy_side_stopped_is_told(tmp_path, what, more):
    both, entry = [Rec("module_out", "a")], ["train", "b.c", "b.c", 0, what]
    verdict = two(tmp_path, both, both, {"stopped": STOPPED, "not_finite": [entry]}, dict(not_finite=[entry]))
    assert verdict.outcome == "INCOMPARABLE"
    assert [reason for reason in verdict.reasons if reason.startswith("Degenerate")] == more
