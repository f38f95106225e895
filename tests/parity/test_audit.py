"""How close a decision came to being otherwise, against trying what would turn it."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ddq_port.ops.nms import greedy_keep
from parity.decisions.audit import audit, by_closeness
from parity.decisions.boxes import iou, iou_slope
from parity.decisions.kinds import rule_of
from parity.traces.trace import Trace, TraceError

from .synthetic import Rec, write_trace

ULP = 2.0**-24  # of a float32 in [0.5, 1)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def indices(*values):
    return torch.tensor(values, dtype=torch.int64)


def alternatives(decision, basis):
    return rule_of(basis).alternatives(decision, basis)


def ranking_ways(chosen, scores):
    return alternatives({"indices": chosen}, {"scores": scores})


def matching_ways(rows, cols, cost):
    return alternatives({"rows": rows, "cols": cols}, {"cost": cost})


def nms_ways(keep, basis):
    return alternatives({"keep": keep}, basis)


def named(ways):
    """Return the ways by name as (gap, ulps, exact, where)."""
    return {way.name: (way.gap, way.ulps, way.exact, way.where) for way in ways}


INF = math.inf


@pytest.mark.parametrize(
    ("chosen", "scores", "expected"),
    [
        # of 1 ULP each of the two may be half off
        (
            [2, 0],
            [0.75, 0.5, 0.75 + ULP],
            {"order": (ULP, 0.5, 0, "2 before 0"), "cut": (0.25, 0.25 / (2 * ULP), 0, "0 in, 1 out")},
        ),
        ([2, 0, 1], [0.75, 0.5, 1.0], {"order": (0.25, 0.25 / (3 * ULP), 0, "2 before 0")}),
        # the closer pair is the one of smaller numbers, although its gap is larger
        ([0, 1, 2, 3], [0.75, 0.5, 0.125, 2.0**-10], {"order": (0.25, 0.25 / (2 * ULP), 0, "0 before 1")}),
        # exact ties do not hide the closest gap
        ([0, 1, 2], [0.75, 0.75, 0.75 - 4 * ULP], {"order": (4 * ULP, 2.0, 1, "1 before 2")}),
        ([0, 1], [0.75, 0.75], {"order": (INF, INF, 1, "0 before 1")}),
        (
            [0],
            [0.75, 0.75, 0.5, 0.75],
            {"cut": (INF, INF, 2, "0 in, 1 out")},
        ),
        ([0], [0.75], {}),
        ([], [0.75], {}),
        ([], [], {}),
        # nothing closes an infinite gap; equal infinities are a tie
        ([0, 1], [0.75, -INF], {"order": (INF, INF, 0, "0 before 1")}),
        ([0, 1, 2], [0.75, -INF, -INF], {"order": (INF, INF, 1, "1 before 2")}),
    ],
    ids=str,
)
def test_ranking(chosen, scores, expected):
    assert named(ranking_ways(indices(*chosen), f64(scores))) == expected


def test_ranking_in_any_order_can_only_be_cut_otherwise():
    found = alternatives({"indices": indices(0, 2)}, {"scores": f64([0.5, 0.25, 0.75]), "sorted": f64(0.0)})
    assert named(found) == {"cut": (0.25, 0.25 / (1.5 * ULP), 0, "0 in, 1 out")}


@pytest.mark.parametrize(
    ("heights", "floors", "highest", "expected"),
    [
        ([0.75, 1.25], [0, 1], 3.0, {"rounding": (0.25, 0.25 / (2 * ULP), 0, "1 to 1")}),
        ([], [], 3.0, {}),
        # where there is a single level, everything is of it
        ([0.75, 1.25], [0, 0], 0.0, {}),
    ],
    ids=str,
)
def test_rounding_to_a_whole_number(heights, floors, highest, expected):
    numbers = dict(heights=f64(heights), lowest=f64(0.0), highest=f64(highest))
    assert named(alternatives({"levels": indices(*floors)}, numbers)) == expected


def draw(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def halves(count, seed):
    """Return scores in [0.5, 1), where all float32 ULPs are equal."""
    return (0.5 + draw(count, seed=seed) / 2).float().double()


def least_raise(decide, scores):
    """Return the least gap that one score must jump to make ``decide`` give something else."""
    before, least = decide(scores), INF
    for low in range(len(scores)):
        for high in range(len(scores)):
            gap = (scores[high] - scores[low]).item()
            if 0 < gap < least:
                raised = scores.clone()
                raised[low] = scores[high] + 1e-12
                if not torch.equal(decide(raised), before):
                    least = gap
    return least


@pytest.mark.parametrize("kept", [1, 4, 7, 8])
def test_closest_of_a_ranking_is_what_turns_it_first(kept):
    for seed in range(15):
        scores = halves(8, seed)
        found = ranking_ways(scores.topk(kept)[1], scores)
        assert min(way.gap for way in found) == pytest.approx(least_raise(lambda s: s.topk(kept)[1], scores), rel=1e-9)


def crowd(seed, count=10):
    centre = draw(3, 2, seed=seed)[torch.arange(count) % 3] + draw(count, 2, seed=seed + 1) * 0.1
    extent = 0.2 + draw(count, 2, seed=seed + 2) * 0.1
    return torch.cat([centre - extent / 2, centre + extent / 2], 1), halves(count, seed + 3)


def suppressing(boxes, scores, threshold, limit):
    return greedy_keep(boxes, scores.argsort(descending=True), threshold, 0, limit)


def basis(boxes, scores, threshold, limit):
    return dict(boxes=boxes, scores=scores, iou_threshold=f64(threshold), max_num=f64(float(limit)))


@pytest.mark.parametrize("limit", [2, 4, 100])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_closest_scores_of_an_nms_are_what_turns_it_first(limit, threshold):
    cut = 0
    for seed in range(0, 80, 4):
        boxes, scores = crowd(seed)
        keep = suppressing(boxes, scores, threshold, limit)
        found = [way for way in nms_ways(keep, basis(boxes, scores, threshold, limit)) if way.quantity == "score"]
        least = least_raise(partial(suppressing, boxes, threshold=threshold, limit=limit), scores)
        assert min(way.gap for way in found) == pytest.approx(least, rel=1e-9), seed
        cut += any(way.name == "cut" for way in found)
    assert (cut > 0) == (limit < 100)


def least_shift(boxes, scores, threshold, limit):
    """Return by how many ULPs the overlaps of one box must be off to turn the NMS."""
    unit = float(np.spacing(np.float32(boxes.abs().max().item())))
    ulps = (iou(boxes, boxes) - threshold) / (unit * iou_slope(boxes, boxes, unit))
    order = scores.argsort(descending=True).tolist()

    def decide(over):
        keep = []
        for box in order:
            if len(keep) < limit and not any(over[other, box] for other in keep):
                keep.append(box)
        return keep

    before, least = decide(ulps > 0), INF
    for box in range(len(boxes)):
        for sign in (-1, 1):
            for shift in ulps[box].abs().tolist():
                moved = ulps.clone()
                moved[box] += sign * shift * (1 + 1e-9)
                moved[:, box] = moved[box]
                if shift < least and decide(moved > 0) != before:
                    least = shift
    return least


@pytest.mark.parametrize("limit", [2, 4, 100])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_closest_overlap_of_an_nms_is_what_turns_it_first(limit, threshold):
    for seed in range(0, 80, 4):
        boxes, scores = crowd(seed)
        keep = suppressing(boxes, scores, threshold, limit)
        ways = named(nms_ways(keep, basis(boxes, scores, threshold, limit)))
        expected = least_shift(boxes, scores, threshold, limit)
        assert ways["overlap"][1] == pytest.approx(expected, rel=1e-6), seed


def strip(height):
    """Return a box of width 1 whose IoU with the unit box is ``height``."""
    return [0.0, 0.0, 1.0, height]


APART = [4.0, 0.0, 5.0, 1.0]


def test_nms_by_hand():
    # 0 suppresses 1 by 0.25 more than needed, 3 stays for 0.125 less, 2 lies elsewhere and 4 is cut
    boxes = f64([strip(1.0), strip(0.75), APART, strip(0.375), [8.0, 0.0, 9.0, 1.0]])
    scores = f64([0.875, 0.75, 0.625, 0.5, 0.4375])
    ways = named(nms_ways(indices(0, 2, 3), basis(boxes, scores, 0.5, 3)))
    unit = 2.0**-20  # of 9
    assert ways == {
        "order": (0.125, 0.125 / (2 * ULP), 0, "2 before 3"),
        "cut": (0.0625, 0.0625 / (1.5 * ULP), 0, "3 in, 4 out"),
        "overlap": (0.125, pytest.approx(0.125 / (unit * 8 / 0.375)), 0, "3 behind 0"),
        "rival": (0.125, 0.125 / (2 * ULP), 0, "0 before 1"),
    }


def test_box_under_several_others_stays_dropped_until_the_last_of_them_lets_go():
    # 2 overlaps 0 by 0.9 and 1 by 0.5625
    boxes = f64([strip(1.0), [0.0, 0.4, 1.0, 0.9], strip(0.9)])
    ways = named(nms_ways(indices(0, 1), basis(boxes, f64([0.875, 0.75, 0.5]), 0.52, 9)))
    assert ways["overlap"][0] == pytest.approx(0.02) and ways["overlap"][3] == "1 behind 0"
    assert ways["rival"] == (0.375, 0.375 / (2 * ULP), 0, "0 before 2")


def test_equal_boxes_of_equal_scores_are_exact_ties():
    boxes, scores = f64([strip(1.0)] * 3 + [APART]), f64([0.75, 0.75, 0.75, 0.5])
    ways = named(nms_ways(indices(1, 3), basis(boxes, scores, 0.5, 9)))
    assert ways["rival"] == (INF, INF, 2, "1 before 0")
    ways = named(nms_ways(indices(1), basis(boxes, scores, 0.5, 1)))
    assert ways["rival"][2] == 2 and ways["cut"] == (0.25, 0.25 / (2 * ULP), 0, "1 in, 3 out")


def test_boxes_far_below_the_cut_change_nothing():
    boxes, scores = crowd(0, 3000)
    scores[40:] = torch.linspace(0.25, 0.125, 2960)
    keep = suppressing(boxes, scores, 0.5, 3)
    assert keep.max() < 40
    few = nms_ways(keep, basis(boxes[:40], scores[:40], 0.5, 3))
    many = nms_ways(keep, basis(boxes, scores, 0.5, 3))
    assert [way for way in many if way.name != "overlap"] == [way for way in few if way.name != "overlap"]
    assert named(many)["overlap"][0] == named(few)["overlap"][0]


def many_covered(last):
    """Return boxes that the first covers by 0.75, so many that they are not looked at in one go, and one more."""
    boxes = f64([strip(1.0), *[strip(0.75)] * 1200, last])
    return boxes, torch.linspace(0.875, 0.5, len(boxes), dtype=torch.float64)


def test_without_a_cut_the_last_of_many_boxes_may_be_the_closest():
    boxes, scores = many_covered(strip(0.5 + 2.0**-10))
    ways = named(nms_ways(indices(0), basis(boxes, scores, 0.5, 9)))
    assert ways["overlap"][0] == 2.0**-10 and ways["overlap"][3] == "1201 behind 0" and "cut" not in ways


def test_best_one_behind_the_cut_may_come_after_many_that_are_covered():
    boxes, scores = many_covered(APART)
    assert named(nms_ways(indices(0), basis(boxes, scores, 0.5, 1)))["cut"][0] == 0.375


def test_overlap_that_only_float32_found_too_large_is_close():
    # an IoU of 0.5 to the last place of float64, which the recorded NMS took for more
    ways = named(nms_ways(indices(0), basis(f64([strip(1.0), strip(0.5)]), f64([0.75, 0.5]), 0.5 + 1e-9, 9)))
    assert ways["overlap"][0] == pytest.approx(1e-9, rel=1e-3) and ways["overlap"][1] < 0.01


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ([[1.0, 2.0], [0.5, 3.0]], {"matching": (1.5, 1.5 / ((2 + 4 + 1 + 4) * ULP), 0, "2 pairs change")}),
        # row 2 for row 1: 1.25 for 1
        ([[1.0, 9.0], [9.0, 1.0], [9.0, 1.25]], {"matching": (0.25, 0.25 / (4 * ULP), 0, "row 2 for 1")}),
        ([[1.0, 1.5]], {"matching": (0.5, 0.5 / (4 * ULP), 0, "row 0 moves")}),
        ([[1.0, 9.0], [9.0, 1.0], [9.0, 1.0]], {"matching": (INF, INF, 1, "row 2 for 1")}),
        ([[1.0, 1.0], [9.0, 9.0]], {}),
        ([[1.0]], {}),
    ],
    ids=str,
)
def test_matching(cost, expected):
    rows, cols = map(torch.from_numpy, linear_sum_assignment(np.array(cost)))
    assert named(matching_ways(rows, cols, f64(cost))) == expected


def selection(keep, scores, phase="predict", call=0):
    return [Rec("basis", "dense", scores, "scores", call, phase), Rec("tap", "dense", keep, "keep", call, phase)]


MATCH = [
    Rec("basis", "match", [[1.0, 2.0], [0.5, 3.0]], "cost"), Rec("tap", "match", [0, 1], "rows"),
    Rec("tap", "match", [1, 0], "cols"),
]  # fmt: skip
NOISE = [Rec("basis", "noise", [3], "randint_like.shape"), Rec("tap", "noise", [1, 2, 3], "draw")]
RESULT = [Rec("tap", "result", [1, 2], "labels", phase="predict")]
DISTINCT = [
    Rec("basis", "distinct", values, slot)
    for slot, values in dict(
        boxes=[strip(1.0), strip(0.75), APART], scores=[0.875, 0.75, 0.5], iou_threshold=0.5, max_num=3
    ).items()
] + [Rec("tap", "distinct", [0, 2], "keep")]


def test_decisions_of_a_trace_are_audited_in_the_order_they_were_made(tmp_path):
    calls = [*selection([0, 1], [0.75, 0.5]), *selection([1, 0], [0.5, 0.5 + ULP], call=1)]
    found = audit(write_trace(tmp_path, *calls, *RESULT, *NOISE, *MATCH, *DISTINCT))
    assert [decision.place for decision in found] == [
        "predict dense#0", "predict dense#1", "train match#0", "train distinct#0",
    ]  # fmt: skip
    assert [sorted(way.name for way in decision.alternatives) for decision in found] == [
        ["order"], ["order"], ["matching"], ["order", "overlap", "rival"],
    ]  # fmt: skip
    closest = by_closeness(found)[0]
    assert closest[0].place == "predict dense#1" and closest[1].ulps == 0.5


def test_decision_that_breaks_its_rule_is_told_and_not_measured(tmp_path):
    (found,) = audit(write_trace(tmp_path, *selection([1, 0], [0.75, 0.5])))
    assert found.alternatives == () and found.fault == "lists 1 (0.5) before 0 (0.75)"


def test_ranking_without_its_numbers_is_no_decision_to_audit(tmp_path):
    assert audit(write_trace(tmp_path, Rec("tap", "dense", [1, 0], "keep"), *RESULT, *NOISE)) == ()


def test_tensor_that_is_not_what_was_recorded_is_refused(tmp_path):
    write_trace(tmp_path, *selection([0, 1], [0.75, 0.5]), Rec("module_out", "m", [1.0]))
    shard = tmp_path / "trace-00001.safetensors"
    content = bytearray(shard.read_bytes())
    place = content.index(torch.tensor([0.75, 0.5]).numpy().tobytes())
    content[place + 1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(TraceError, match="basis `dense`"):
        audit(Trace.load(tmp_path))


def test_command_prints_the_closest_first_in_80_columns(parity, tmp_path):
    scores = [0.75, 0.75 - ULP, 0.5, 0.5]
    write_trace(tmp_path / "t", *selection([0, 1, 2], scores), *MATCH, *DISTINCT, *selection([0], [0.5], call=1))
    result = parity("audit", tmp_path / "t")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and max(map(len, lines)) <= 80
    assert lines[0].split() == ["decision", "otherwise", "by", "gap", "ULPs", "risk", "closest"]
    assert lines[1].split() == ["predict", "dense#0", "order", "(score)", "6e-08", "0.5", "!", "0", "before", "1"]
    assert lines[-2] == "exact ties: predict dense#0 cut x1"
    assert lines[-1] == "AUDITED 4 decisions: 1 at risk within 1024 ULPs, 1 with exact ties"
    ulps = [float(line[line.index(")") + 1 :].split()[1]) for line in lines[1:-2]]
    assert ulps == sorted(ulps) and len(ulps) == 5


@pytest.mark.parametrize(("ulps", "risky"), [("0", 0), ("0.5", 1), ("1e9", 3), ("inf", 3)])
def test_number_of_ulps_to_reckon_with_may_be_given(parity, tmp_path, ulps, risky):
    write_trace(tmp_path / "t", *selection([0, 1, 2], [0.75, 0.75 - ULP, 0.5, 0.5]), *MATCH, *DISTINCT)
    result = parity("audit", tmp_path / "t", "--ulps", ulps, "--json")
    found = json.loads(result.stdout)
    assert [decision["at_risk"] for decision in found["decisions"]].count(True) == risky
    assert f"{risky} at risk" in found["summary"]


def test_command_lists_as_many_as_asked_for(parity, tmp_path):
    write_trace(tmp_path / "t", *MATCH, *DISTINCT)
    lines = parity("audit", tmp_path / "t", "--worst", "2").stdout.splitlines()
    assert len(lines) == 5 and lines[3] == "and 2 more, farther from a tie"
    assert parity("audit", tmp_path / "t", "-q").stdout.splitlines() == [lines[-1]]


def test_json_holds_every_decision_and_no_infinity(parity, tmp_path):
    write_trace(tmp_path / "t", *selection([0, 1], [0.5, 0.5]), *MATCH)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(parity("audit", tmp_path / "t", "--json").stdout, parse_constant=refuse)
    assert [(d["phase"], d["name"], d["call"], d["at_risk"]) for d in found["decisions"]] == [
        ("predict", "dense", 0, False), ("train", "match", 0, False),
    ]  # fmt: skip
    (way,) = found["decisions"][0]["ways"]
    assert (way["name"], way["gap"], way["ulps"], way["exact"]) == ("order", None, None, 1)


def test_command_exits_1_where_a_decision_breaks_its_rule(parity, tmp_path):
    write_trace(tmp_path / "t", *selection([1, 0], [0.75, 0.5]), *MATCH)
    result = parity("audit", tmp_path / "t")
    assert result.exit_code == 1 and "breaks its rule: predict dense#0 lists 1 (0.5) before 0 (0.75)" in result.stdout
    assert result.stdout.splitlines()[-1] == "MISMATCH 1 of 2 decisions breaks its own rule. First at predict dense#0."


@pytest.mark.parametrize("more", [[], ["--json"], ["-q"]], ids=str)
def test_trace_without_decisions_is_never_a_pass(parity, tmp_path, more):
    write_trace(tmp_path / "t", Rec("module_out", "m"), *RESULT, *NOISE)
    result = parity("audit", tmp_path / "t", *more)
    assert result.exit_code == 3 and "holds no decision" in result.stdout


@pytest.mark.parametrize("arguments", [["--ulps", "nan"], ["--ulps", "-1"], ["--worst", "0"]], ids=str)
def test_numbers_that_make_no_sense_are_refused(parity, tmp_path, arguments):
    write_trace(tmp_path / "t", *MATCH)
    assert parity("audit", tmp_path / "t", *arguments).exit_code == 2


def test_folder_that_is_no_trace_is_refused(parity, tmp_path):
    result = parity("audit", tmp_path)
    assert result.exit_code == 2 and "is not a trace" in result.stderr
