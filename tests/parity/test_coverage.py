"""What was not compared is listed, and none of it passes without a written reason."""

import json

import pytest

from converters.rules.mapping import Keep, Mapping, Rename
from legacy_adapters.recording.trace_writer import sealed
from parity.comparing.compare import Tolerance
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.report.report_json import as_dict
from parity.report.sections import WIDTH, coverage_lines, cut_list
from parity.traces.trace import Trace
from parity.verdict.verdict import INCOMPARABLE, MATCH, judge

from .synthetic import Rec, judged, write_trace

OUT = Rec("module_out", "backbone", [1.0, 2.0])
LOOSE = Tolerance("fixed", rtol=1.0, atol=1.0)
SIDES = {LEGACY: "on_legacy", NEW: "on_new"}


def call(name, number=0, values=1.0):
    """Return the records of one call of a module."""
    return [Rec("module_in", name, values, "x", number), Rec("module_out", name, values, "", number)]


def both(side, one, other):
    """Return two sides' records, ``one`` on the given side and ``other`` on the other."""
    return (one, other) if side == LEGACY else (other, one)


def covering(side, name):
    return tuple(Exclusion(side, kind, name, "*", "not needed there") for kind in ("module_in", "module_out"))


def filler(count):
    return [Rec("module_out", "filler", float(i), call=i) for i in range(count)]


@pytest.mark.parametrize("side", [LEGACY, NEW])
@pytest.mark.parametrize("tolerance", [Tolerance(), LOOSE], ids=["exact", "fixed"])
def test_module_that_runs_on_one_side_only_is_listed_and_incomparable(tmp_path, side, tolerance):
    # a module that takes and gives no tensor leaves no record that could be missed
    more = {SIDES[side]: dict(leaf_calls={"extra": 2, "backbone": 1})}
    fewer = {SIDES[LEGACY if side == NEW else NEW]: dict(leaf_calls={"backbone": 1}, never_executed=("extra",))}
    verdict = judged(tmp_path, [OUT], [OUT], tolerance=tolerance, **more, **fewer)
    assert verdict.outcome == INCOMPARABLE
    assert verdict.reasons == (f"2 {'of 3 ' if side == LEGACY else ''}leaf calls of the {side} side have no twin.",)
    (lone,) = verdict.coverage.lone_calls
    assert (lone.side, lone.phase, lone.name, lone.calls) == (side, "train", "extra", 2)
    assert f"  ran on the {side} side only: extra x2 (train)" in coverage_lines(verdict.coverage)


def test_call_more_than_the_twin_made_is_a_lone_one(tmp_path):
    verdict = judged(tmp_path, [OUT], [OUT], on_legacy=dict(leaf_calls={"a": 3}), on_new=dict(leaf_calls={"a": 5}))
    assert verdict.outcome == INCOMPARABLE and verdict.coverage.paired_leaf_calls == 3
    assert [(lone.side, lone.calls) for lone in verdict.coverage.lone_calls] == [(NEW, 2)]


@pytest.mark.parametrize(("legacy", "new", "outcome"), [
    ({"norm": 3}, {"norm": 4}, MATCH),  # losses, gradients and state show what it does
    ({"norm": 4}, {"norm": 3}, INCOMPARABLE),
    ({"other": 1}, {"other": 1, "norm": 1}, INCOMPARABLE),
])  # fmt: skip
def test_call_more_in_a_step_of_training_is_seen_in_what_it_leaves(tmp_path, legacy, new, outcome):
    records = [OUT, Rec("param", "norm.weight", [1.0], phase="weights")]
    records += [Rec(kind, "norm.weight", [1.0], phase="step 1") for kind in ("grad", "state")]
    sides = {f"on_{side}": dict(called_in="step 1", leaf_calls=calls) for side, calls in ((LEGACY, legacy), (NEW, new))}
    assert judged(tmp_path, records, records, **sides).outcome == outcome


def test_calls_of_a_renamed_module_pair(tmp_path):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("old.*", "new.*")))
    sides = dict(on_legacy=dict(leaf_calls={"old.fc": 3}), on_new=dict(leaf_calls={"new.fc": 3}))
    verdict = judged(tmp_path, [OUT], [OUT], mapping=mapping, **sides)
    assert verdict.outcome == MATCH and verdict.coverage.lone_calls == ()


@pytest.mark.parametrize("side", [LEGACY, NEW])
def test_lone_call_passes_with_a_written_exclusion_of_what_it_recorded(tmp_path, side):
    one = [OUT, *filler(100), *call("extra")]
    more = {SIDES[side]: dict(leaf_calls={"extra": 1, "filler": 100})}
    fewer = {SIDES[LEGACY if side == NEW else NEW]: dict(leaf_calls={"filler": 100})}
    sides = both(side, one, [OUT, *filler(100)])
    verdict = judged(tmp_path / "a", *sides, exclusions=covering(side, "extra"), **more, **fewer)
    assert verdict.outcome == MATCH and verdict.coverage.lone_calls == ()
    other = judged(tmp_path / "b", *sides, exclusions=covering(side, "extra")[:1], **more, **fewer)
    assert other.outcome == INCOMPARABLE and [lone.name for lone in other.coverage.lone_calls] == ["extra"]


def test_exclusion_of_one_output_does_not_account_for_a_call_with_two(tmp_path):
    outputs = [Rec("module_out", "extra", slot=slot) for slot in "01"]
    exclusion = Exclusion(LEGACY, "module_out", "extra", "1", "a mask nobody reads")
    verdict = judged(tmp_path, [*filler(100), *outputs], filler(100), exclusions=(exclusion,),
                     on_legacy=dict(leaf_calls={"extra": 1}))  # fmt: skip
    assert verdict.outcome == INCOMPARABLE and [lone.name for lone in verdict.coverage.lone_calls] == ["extra"]


@pytest.mark.parametrize(
    ("calls", "excluded", "expected"), [(50, 1, MATCH), (49, 1, INCOMPARABLE), (100, 2, MATCH), (99, 2, INCOMPARABLE)]
)
def test_at_most_two_percent_of_the_legacy_leaf_calls_may_be_excluded(tmp_path, calls, excluded, expected):
    # many records to each call, so that their share stays far below
    legacy = [*filler(1000), *(Rec("module_out", "extra", call=i) for i in range(excluded))]
    sides = dict(
        on_legacy=dict(leaf_calls={"extra": excluded, "a": calls - excluded}),
        on_new=dict(leaf_calls={"a": calls - excluded}),
    )
    verdict = judged(tmp_path, legacy, filler(1000), exclusions=covering(LEGACY, "extra"), **sides)
    assert verdict.outcome == expected and verdict.coverage.excluded_leaf_calls == excluded
    if expected == INCOMPARABLE:
        share = f"{excluded / calls:.1%}"
        assert verdict.reasons == (f"{share} of the legacy leaf calls are excluded; at most 2% may be.",)


def test_call_whose_output_is_excluded_counts_although_its_twin_ran(tmp_path):
    outputs = [Rec("module_out", "a", call=i, slot="1") for i in range(3)]
    leaves = dict(leaf_calls={"a": 10})
    exclusion = Exclusion(LEGACY, "module_out", "a", "1", "a mask nobody reads")
    verdict = judged(tmp_path, [*filler(1000), *outputs], filler(1000), exclusions=(exclusion,), on_legacy=leaves,
                     on_new=leaves)  # fmt: skip
    assert verdict.coverage.excluded_leaf_calls == 3 and verdict.outcome == INCOMPARABLE
    assert verdict.reasons == ("30.0% of the legacy leaf calls are excluded; at most 2% may be.",)


def test_call_of_which_only_an_input_is_excluded_does_not_count(tmp_path):
    masks = [Rec("module_in", "a", call=i, slot="mask") for i in range(3)]
    leaves = dict(leaf_calls={"a": 10})
    exclusion = Exclusion(LEGACY, "module_in", "a", "mask", "a mask that masks nothing")
    verdict = judged(tmp_path, [*filler(1000), *masks], filler(1000), exclusions=(exclusion,), on_legacy=leaves,
                     on_new=leaves)  # fmt: skip
    assert verdict.coverage.excluded_leaf_calls == 0 and verdict.outcome == MATCH


def test_modules_of_one_side_are_listed_by_their_new_names(tmp_path):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("old.*", "new.*")))
    classes = {LEGACY: ["backbone", "old.fc", "gone"], NEW: ["backbone", "new.fc", "wrapper", "wrapper.a"]}
    traces = []
    for side, names in classes.items():
        write_trace(tmp_path / side, OUT)
        path = tmp_path / side / "index.json"
        index = json.loads(path.read_text())
        index["coverage"]["classes"] = {name: "torch.nn.Module" for name in names}
        path.write_text(json.dumps(sealed(index)))
        traces.append(Trace.load(tmp_path / side))
    verdict = judge(*traces, mapping, (), Tolerance())
    assert verdict.coverage.lone_modules == {LEGACY: ("gone",), NEW: ("wrapper", "wrapper.a")}
    assert coverage_lines(verdict.coverage) == [
        "  modules of the legacy side only: gone", "  modules of the new side only: wrapper, wrapper.a",
    ]  # fmt: skip


@pytest.mark.parametrize("side", [LEGACY, NEW])
def test_gradient_on_one_side_is_told_with_the_side_that_has_it(tmp_path, side):
    without = {SIDES[NEW if side == LEGACY else LEGACY]: dict(without_gradient=("neck.weight", "head.bias"))}
    verdict = judged(tmp_path, [OUT], [OUT], **without)
    assert verdict.outcome == INCOMPARABLE
    assert verdict.coverage.gradient_only_on[side] == ("head.bias", "neck.weight")
    assert f"  gradient on the {side} side only: head.bias, neck.weight" in coverage_lines(verdict.coverage)


@pytest.mark.parametrize("side", [LEGACY, NEW])
def test_frozen_on_one_side_and_without_gradient_on_the_other_is_no_difference(tmp_path, side):
    frozen = {SIDES[side]: dict(frozen=("neck.weight",))}
    without = {SIDES[NEW if side == LEGACY else LEGACY]: dict(without_gradient=("neck.weight",))}
    assert judged(tmp_path / "a", [OUT], [OUT], **frozen, **without).outcome == MATCH
    assert judged(tmp_path / "b", [OUT], [OUT], **frozen).coverage.gradients_on_one_side == ("neck.weight",)


@pytest.mark.parametrize("side", [LEGACY, NEW])
@pytest.mark.parametrize("tolerance", [Tolerance(), LOOSE], ids=["exact", "fixed"])
def test_loss_on_one_side_is_listed_and_incomparable(tmp_path, side, tolerance):
    more = [OUT, Rec("loss", "loss_cls"), Rec("loss", "loss_extra")]
    verdict = judged(tmp_path, *both(side, more, more[:-1]), tolerance=tolerance)
    assert verdict.outcome == INCOMPARABLE
    assert verdict.coverage.losses_only_on == {LEGACY: (), NEW: (), side: ("loss_extra",)}
    assert f"  losses of the {side} side only: loss_extra" in coverage_lines(verdict.coverage)


def test_modules_that_never_ran_are_told_by_side_under_their_new_names(tmp_path):
    mapping = Mapping("toy", (Keep("backbone.**"), Rename("old.*", "new.*")))
    sides = dict(on_legacy=dict(never_executed=("old.a", "old.b")), on_new=dict(never_executed=("new.a", "new.c")))
    verdict = judged(tmp_path, [OUT], [OUT], mapping=mapping, **sides)
    assert verdict.outcome == MATCH
    assert coverage_lines(verdict.coverage) == [
        "  never ran on either side: new.a", "  never ran on the legacy side: new.b",
        "  never ran on the new side: new.c",
    ]  # fmt: skip


def test_nothing_to_tell_makes_no_line(tmp_path):
    assert coverage_lines(judged(tmp_path, [OUT], [OUT]).coverage) == []


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a"], "x: a"),
        (["a", "b"], "x: a, b"),
        (["aaaaaaaa", "bbbbbbbb"], "x: aaaaaaaa, bbbbbbbb"),
        (["aaaaaaaa", "bbbbbbbbb"], "x: aaaaaaaa (+1 more)"),
        (["a"] * 100, "x: a, a, a (+97 more)"),
        (["a" * 50], "x: " + "a" * 50),
        (["a" * 50, "b"], "x: " + "a" * 50 + " (+1 more)"),
    ],
    ids=str,
)
def test_long_list_is_cut_to_one_line_with_the_count_of_the_rest(names, line):
    assert cut_list("x: ", names, 21) == line


def test_coverage_keeps_to_few_lines_of_80_columns(tmp_path):
    modules = {f"decoder.layers.{i}.fc": 1 for i in range(500)}
    legacy = [OUT, *(Rec("loss", f"d{i}.loss_cls") for i in range(300))]
    verdict = judged(tmp_path, legacy, [OUT], on_legacy=dict(leaf_calls=modules),
                     on_new=dict(never_executed=tuple(modules), without_gradient=tuple(modules)))  # fmt: skip
    lines = coverage_lines(verdict.coverage)
    assert len(lines) == 4 and max(map(len, lines)) <= WIDTH and all("more)" in line for line in lines)
    data = json.loads(json.dumps(as_dict(verdict), allow_nan=False))["coverage"]
    assert len(data["lone_calls"]) == len(data["never_executed"]["new"]) == len(data["gradients_on_one_side"]) == 500
    assert len(data["losses_only_on"]["legacy"]) == 300


WEIGHT = Rec("param", "level_embed", phase="weights")
TAPS = [Rec("basis", "dense", [0.5], "scores"), Rec("tap", "dense", [0], "keep"), Rec("tap", "result", 1.0, "scores")]
STATE = Rec("state", "fc.weight")
INPUT = Rec("module_in", "backbone", slot="x")


@pytest.mark.parametrize(
    "records",
    [[], [WEIGHT], TAPS, [WEIGHT, *TAPS], [STATE], [INPUT], [WEIGHT, STATE, INPUT, *TAPS]],
    ids=["nothing", "weights", "taps", "weights and taps", "state", "inputs", "all of these"],
)
@pytest.mark.parametrize("tolerance", [Tolerance(), LOOSE], ids=["exact", "fixed"])
def test_what_no_model_computed_never_passes(tmp_path, records, tolerance):
    verdict = judged(tmp_path, records, records, tolerance=tolerance)
    assert verdict.outcome == INCOMPARABLE and verdict.reasons[0].startswith("Nothing that was computed")


PREDICT = [Rec("module_out", "m", phase="predict"), Rec("tap", "result", 1.0, "scores", phase="predict")]
TRAIN = [Rec("module_out", "m"), Rec("loss", "total"), Rec("grad", "m.weight")]
ALL = ["forward", "loss", "grad"]


@pytest.mark.parametrize(
    ("records", "checks", "missing"),
    [
        (PREDICT, ALL, ["loss", "grad"]),
        (TRAIN, ALL, ["forward"]),
        (TRAIN[:1], ["loss"], ["loss"]),
        (TRAIN[:2], ALL, ["forward", "grad"]),
        (PREDICT[1:] + TRAIN, ALL, ["forward"]),
        (PREDICT + TRAIN, [*ALL, "bogus"], ["bogus"]),
        (PREDICT + TRAIN, ALL, []),
        (PREDICT, ["forward"], []),
    ],
    ids=["no training", "no inference", "no loss", "no gradients", "taps of inference only", "unknown", "all", "asked"],
)
def test_phase_or_check_that_was_asked_for_and_left_nothing_never_passes(tmp_path, records, checks, missing):
    sides = dict(on_legacy=dict(checks=checks), on_new=dict(checks=checks))
    verdict = judged(tmp_path, records, records, **sides)
    assert verdict.outcome == (INCOMPARABLE if missing else MATCH)
    assert verdict.reasons == tuple(f"Check {name} was asked for and nothing of it was compared." for name in missing)


@pytest.mark.parametrize("side", [LEGACY, NEW])
@pytest.mark.parametrize("records", [PREDICT, TRAIN], ids=["inference", "training"])
def test_phase_that_one_side_lacks_never_passes(tmp_path, side, records):
    sides = dict(on_legacy=dict(checks=ALL), on_new=dict(checks=ALL))
    verdict = judged(tmp_path, *both(side, PREDICT + TRAIN, records), **sides)
    assert verdict.outcome == INCOMPARABLE and len(verdict.reasons) > 1


@pytest.mark.parametrize("empty", [LEGACY, NEW])
def test_side_whose_every_record_is_excluded_never_passes(tmp_path, empty):
    everything = tuple(
        Exclusion(side, kind, "*", "*", "any") for side in (LEGACY, NEW) for kind in ("module_out", "loss", "grad")
    )
    verdict = judged(tmp_path, *both(empty, [WEIGHT], [WEIGHT, *TRAIN]), exclusions=everything)
    assert verdict.outcome == INCOMPARABLE and verdict.reasons[0].startswith("Nothing that was computed")


@pytest.mark.parametrize("records", [[], [WEIGHT], TAPS, [INPUT]], ids=["nothing", "weights", "taps", "inputs"])
@pytest.mark.parametrize("tolerance", ["exact", "fixed"])
def test_command_exits_3_where_nothing_computed_was_compared(parity, tmp_path, records, tolerance):
    tiny = dict(family="mmdet_ddq", variant="tiny_4scale")
    for side in (LEGACY, NEW):
        write_trace(tmp_path / side, *records, **tiny)
    result = parity("compare", tmp_path / LEGACY, tmp_path / NEW, "--family", "mmdet_ddq", "--variant", "tiny_4scale",
                    "--tolerance", tolerance)  # fmt: skip
    assert result.exit_code == 3 and result.stdout.splitlines()[-1].startswith("INCOMPARABLE Nothing")
