"""A decision that differs is told with its margin under every tolerance."""

import json

import pytest
import torch

from parity.comparing.compare import Tolerance
from parity.comparing.pairing import LEGACY, NEW
from parity.report.report_json import as_dict
from parity.report.sections import decision_line, decision_lines, witness_line
from parity.report.stages import stages
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import INF, NAN, Rec, judged

FIXED = Tolerance("fixed", rtol=1e-3, atol=1e-3)
OUT = Rec("module_out", "m")
NEAR = 0.5 + 2.0**-24 * 2  # the float32 after 0.5 and one more


def dense(keep, scores, call=0, name="dense"):
    return [Rec("basis", name, scores, "scores", call), Rec("tap", name, keep, "keep", call)]


def match(rows, cols, cost):
    return [Rec("basis", "match", cost, "cost"), Rec("tap", "match", rows, "rows"), Rec("tap", "match", cols, "cols")]


def strip(height):
    return [0.0, 0.0, 1.0, height]


BOXES = [strip(1.0), strip(0.625), [4.0, 0.0, 5.0, 1.0]]


def distinct(keep, threshold=0.75, boxes=BOXES, scores=(0.875, 0.75, 0.5), max_num=9):
    numbers = dict(boxes=boxes, scores=list(scores), iou_threshold=threshold, max_num=max_num)
    basis = [Rec("basis", "distinct", values, slot, phase="predict") for slot, values in numbers.items()]
    return [*basis, Rec("tap", "distinct", keep, "keep", phase="predict")]


@pytest.fixture(params=[Tolerance(), FIXED], ids=["exact", "fixed"])
def differing(request, tmp_path):
    """Return a function that judges two sides and gives the decisions that differ; they are mismatches all the same."""

    def call(legacy, new):
        verdict = judged(tmp_path, [OUT, *legacy], [OUT, *new], tolerance=request.param)
        assert verdict.outcome == MISMATCH
        assert not any(c.accepted for c in verdict.comparisons if c.pair.new.kind == "tap" and not c.identical)
        json.loads(json.dumps(as_dict(verdict), allow_nan=False))
        return verdict.decisions

    return call


def test_near_tie_is_told_by_its_score_gap_and_the_difference_of_the_scores(differing):
    (found,) = differing(dense([0, 1], [NEAR, 0.5]), dense([1, 0], [0.5, NEAR]))
    gap = NEAR - 0.5
    assert (found.phase, found.name, found.call, found.accepted) == ("train", "dense", 0, False)
    assert found.gaps == {"scores": gap} and found.is_explained
    assert [(t.decision, t.numbers, t.margin.value, t.margin.allowed) for t in found.trials] == [
        (NEW, NEW, 0.0, 0.0), (LEGACY, NEW, gap, 2 * gap), (NEW, LEGACY, gap, 2 * gap),
    ]  # fmt: skip
    assert decision_line(found) == (
        "train dense#0: score margin 1.2e-07, measured difference explains 2.4e-07: "
        "explained by the difference of its numbers"
    )
    assert witness_line(found) == "the new side, on the legacy side's numbers, lists 1 (0.5) before 0 (0.50000012)"


def test_exact_tie_is_told_as_such(differing):
    (found,) = differing(dense([0, 1], [0.5, 0.5]), dense([1, 0], [0.5, 0.5]))
    assert found.is_explained
    assert (
        decision_line(found)
        == "train dense#0: score margin 0 on equal numbers: an exact tie: equal numbers allow either"
    )


def test_wrong_choice_on_equal_scores_is_a_wrong_rule(differing):
    (found,) = differing(dense([0, 2], [0.875, 0.25, 0.75]), dense([0, 1], [0.875, 0.25, 0.75]))
    assert not found.is_explained and found.worst.margin.value == 0.5
    assert decision_line(found) == (
        "train dense#0: score margin 0.5 on equal numbers: no tie: it breaks the rule on its own numbers"
    )
    assert witness_line(found) == "the new side leaves out 2 (0.75) and takes 1 (0.25)"


def test_wrong_choice_shows_on_its_own_numbers_although_those_differ_by_more(differing):
    # the difference of the scores would explain any choice on the legacy side's, but not on its own
    (found,) = differing(dense([0], [0.875, 0.25]), dense([1], [0.5, 0.25]))
    assert found.reading == "no tie: it breaks the rule on its own numbers"
    assert found.worst.numbers == NEW and found.worst.margin.value == 0.25
    assert "score margin 0.25 on its own numbers" in decision_line(found)


def test_other_length_of_a_ranking_is_never_explained_where_it_is_used(differing):
    scores = [0.875, 0.75, 0.5, 0.25]
    sides = ([*dense(ranked, scores), Rec("loss", "of_ranked", value)] for ranked, value in (([0, 1, 2], 3.0), ([0], 1.0)))
    (found,) = differing(*sides)
    assert not found.is_explained and decision_line(found) == "train dense#0: length margin 2: no tie"
    assert witness_line(found) == "the new side lists 1, the legacy side 3"


def test_box_dropped_at_another_threshold_is_told_by_its_iou(differing):
    (found,) = differing(distinct([0, 1, 2]), distinct([0, 2], threshold=0.5))
    assert found.gaps["iou_threshold"] == 0.25 and not found.is_explained
    assert decision_line(found).startswith("predict distinct#0: IoU margin 0.12, measured difference explains ")
    assert decision_line(found).endswith(": no tie: iou_threshold differs by 0.25")
    assert witness_line(found) == (
        "the new side, on the legacy side's numbers, drops 1, which no better kept box covers with more than "
        "IoU 0.625, threshold 0.75"
    )


def test_box_kept_at_another_threshold_is_told_by_its_iou(differing):
    (found,) = differing(distinct([0, 2], threshold=0.5), distinct([0, 1, 2]))
    assert witness_line(found) == (
        "the new side, on the legacy side's numbers, keeps 1, though the kept 0 covers it with IoU 0.625, threshold 0.5"
    )


def test_box_kept_against_the_rule_on_equal_numbers(differing):
    (found,) = differing(distinct([0, 2], threshold=0.5), distinct([0, 1, 2], threshold=0.5))
    assert found.reading == "no tie: it breaks the rule on its own numbers"
    assert "IoU margin 0.12 on equal numbers" in decision_line(found)


def test_overlap_within_the_difference_of_the_boxes_is_explained(differing):
    moved = [strip(1.0), strip(0.75 + 2.0**-20), BOXES[2]]
    near = [strip(1.0), strip(0.75 - 2.0**-20), BOXES[2]]
    (found,) = differing(distinct([0, 1, 2], boxes=near), distinct([0, 2], boxes=moved))
    assert found.is_explained and found.gaps["boxes"] == 2.0**-19
    assert found.worst.margin.quantity == "IoU" and found.worst.margin.value == pytest.approx(2.0**-20)


COST = [[1.0, 2.0], [0.5, 3.0]]


def test_matching_is_told_by_its_excess_cost(differing):
    (found,) = differing(match([0, 1], [1, 0], COST), match([0, 1], [0, 1], COST))
    assert found.worst.margin.value == 1.5 and found.worst.margin.quantity == "cost"
    assert witness_line(found) == "the new side costs 4, the best matching 2.5"
    assert "cost margin 1.5 on equal numbers: no tie" in decision_line(found)


def test_both_slots_of_a_matching_make_one_decision(differing):
    assert len(differing(match([0, 1], [1, 0], COST), match([1, 0], [1, 0], COST))) == 1


def test_calls_are_told_apart_and_equal_ones_left_out(differing):
    legacy = [*dense([0], [0.5, 0.25]), *dense([0], [0.5, 0.25], call=1), *dense([0], [0.5, 0.25], call=2)]
    new = [*dense([1], [0.5, 0.25]), *dense([0], [0.5, 0.25], call=1), *dense([1], [0.25, 0.5], call=2)]
    assert [(d.call, d.is_explained) for d in differing(legacy, new)] == [(0, False), (2, True)]


@pytest.mark.parametrize(
    ("legacy", "new", "says"),
    [
        (
            dense([0], [0.5, 0.25]),
            dense([2], [0.25, 0.125, 0.5]),
            "its scores are [2] on the legacy side and [3] on the new one",
        ),
        (dense([0], [0.5, 0.25]), dense([1], [-0.5, -0.25]), "takes the largest first, the other the smallest"),
        (dense([0], [0.5, NAN]), dense([1], [0.5, 0.75]), "NaN or infinite on one side only"),
        (dense([0], [0.5, 0.25]), dense([1], [0.5, INF]), "NaN or infinite on one side only"),
        (dense([0], [0.5, 0.25]), match([0], [0], [[1.0]])[:1] + dense([1], [0.5, 0.25])[1:], ""),
        (distinct([0]), distinct([1])[:2] + distinct([1])[3:], "different things"),
    ],
    ids=["shape", "turned round", "NaN", "Inf", "other tap", "slot"],
)
def test_decision_on_numbers_that_cannot_be_compared_is_not_tried(differing, legacy, new, says):
    found = differing(legacy, new)
    if says:
        assert found[0].trials == () and says in found[0].reading and not found[0].is_explained
        assert found[0].reading.startswith("not tried: ")
    else:
        assert found == ()


@pytest.mark.parametrize(
    ("legacy", "new", "witness"),
    [
        (dense([0], [0.5, 0.25]), dense([7], [0.5, 0.25]), "is not a list of different indices below 2"),
        (dense([[0]], [0.5, 0.25]), dense([[1]], [0.5, 0.25]), "is not a list of indices"),
        (dense([0], [[0.5, 0.25]]), dense([1], [[0.5, 0.25]]), "is not a choice from a list of scores"),
        (match([0, 1], [1, 0], COST), match([0, 0], [1, 0], COST), "is not a matching of 2 rows and columns"),
        (
            match([0, 1], [1, 0], [[NAN, 2.0], [0.5, 3.0]]),
            match([0, 1], [0, 1], [[NAN, 2.0], [0.5, 3.0]]),
            "cannot be tried, for these costs have no best matching",
        ),
        (distinct([0, 2], max_num=2), distinct([0, 1, 2], max_num=2), "keeps 3 boxes, more than 2"),
        (distinct([0]), distinct(torch.empty(0, dtype=torch.int64)), "keeps none of 3"),
        (distinct([0, 2], threshold=0.5)[1:], distinct([2, 0], threshold=0.5)[1:], "lists 2 (0.5) before 0 (0.875)"),
    ],
    ids=["range", "shape", "table of scores", "repeated row", "NaN", "too many", "none", "scores alone"],
)
def test_what_is_no_decision_at_all_is_told_and_never_explained(differing, legacy, new, witness):
    (found,) = differing(legacy, new)
    assert not found.is_explained and witness_line(found) == f"the new side {witness}"


def test_draw_of_whole_numbers_is_no_decision(differing):
    def noise(values, dtype):
        asked = Rec("basis", "noise", [2], "randint_like.shape")
        return [asked, Rec("tap", "noise", torch.tensor(values, dtype=dtype), "draw")]

    assert differing(noise([1, 2], torch.int64), noise([1, 3], torch.int64)) == ()
    assert differing(noise([1, 2], torch.float32), noise([1, 3], torch.int64)) == ()


@pytest.mark.parametrize("name", ["noise", "match", "anything at all"])
def test_what_a_tap_is_follows_from_what_was_recorded_and_not_from_its_name(differing, name):
    asked = Rec("basis", name, [2], "rand.shape", call=1)
    draws = [[asked, Rec("tap", name, values, "draw", call=1)] for values in ([0.5, 0.25], [0.5, 0.125])]
    rankings = [dense(keep, [0.5, 0.25], name=name) for keep in ([0], [1])]
    (found,) = differing([*rankings[0], *draws[0]], [*rankings[1], *draws[1]])
    assert (found.name, found.call) == (name, 0) and "1 (0.25)" in witness_line(found)


def test_draws_and_decisions_have_rows_of_their_own_in_the_table(tmp_path):
    draws = [
        record
        for call in range(3)
        for record in (Rec("basis", "rank", [2], "rand.shape", call), Rec("tap", "rank", [0.5, 0.25], "draw", call))
    ]
    records = [OUT, *dense([0], [0.5, 0.25], name="noise"), *draws, Rec("tap", "result", [1.0], "scores")]
    rows = {stage.name: stage.records for stage in stages(judged(tmp_path, records, records).comparisons)}
    assert rows == {"training: m": 1, "training: decisions": 2, "training: random draws": 6, "training: result": 1}


def test_decision_whose_numbers_the_legacy_side_has_not_recorded_is_not_tried(tmp_path):
    ranking = dense([1], [0.5, 0.25])
    (found,) = judged(tmp_path, [OUT, *dense([0], [0.5, 0.25])[1:]], [OUT, *ranking]).decisions
    assert found.reading == "not tried: the sides record different things that it rests on" and found.trials == ()


def test_json_gives_every_trial_with_what_the_terminal_says(tmp_path):
    verdict = judged(tmp_path, [OUT, *dense([0], [0.5, 0.25])], [OUT, *dense([1], [0.5, 0.25])])
    data = json.loads(json.dumps(as_dict(verdict), allow_nan=False))
    (decision,) = data["decisions"]
    assert decision["summary"] == decision_line(verdict.decisions[0]) and decision["basis_gaps"] == {"scores": 0.0}
    assert (decision["explained"], decision["accepted"], decision["allowance"]) == (False, False, "measured difference")
    assert decision["trials"][0] == {
        "decision": "new", "numbers": "new", "quantity": "score", "margin": 0.25, "explained": 0.0, "is_tie": False,
        "witness": "leaves out 0 (0.5) and takes 1 (0.25)",
    }  # fmt: skip
    assert data["first_divergence"]["decision"] == decision


def test_margin_that_is_infinite_is_null_in_json(tmp_path):
    verdict = judged(tmp_path, [OUT, *dense([0], [0.5, 0.25])], [OUT, *dense([5], [0.5, 0.25])])
    data = json.loads(json.dumps(as_dict(verdict), allow_nan=False))
    assert data["decisions"][0]["trials"][0]["margin"] is None


def test_equal_decisions_are_not_listed(tmp_path):
    verdict = judged(tmp_path, [OUT, *dense([0], [0.5, 0.25])], [OUT, *dense([0], [0.5, 0.125])])
    assert verdict.decisions == () and decision_lines(verdict.decisions) == []


def test_long_lists_of_decisions_are_cut_with_a_count(tmp_path):
    legacy = [r for call in range(6) for r in dense([0], [call + 0.5, call + 0.25], call)]
    new = [r for call in range(6) for r in dense([1], [call + 0.5, call + (0.25 if call % 2 else 0.75)], call)]
    verdict = judged(tmp_path, legacy, new)
    lines = decision_lines(verdict.decisions)
    assert lines[0] == "decided differently: 3 explained, 3 no tie" and len(lines) == 5
    assert [line.split(":")[0] for line in lines[1:4]] == ["  train dense#0", "  train dense#1", "  train dense#2"]
    assert lines[-1] == "  and 3 more, see --json"


def test_sides_of_other_seeds_are_still_incomparable(tmp_path):
    legacy, new = dense([0], [0.5, 0.25]), dense([1], [0.5, 0.25])
    verdict = judged(tmp_path, [OUT, *legacy], [OUT, *new], on_new=dict(seed=1))
    assert verdict.outcome == INCOMPARABLE and len(verdict.decisions) == 1


def test_rounding_within_the_difference_of_its_heights_is_explained(differing):
    def levels(floors, heights):
        numbers = dict(heights=heights, lowest=0, highest=3)
        return [*(Rec("basis", "levels", value, slot) for slot, value in numbers.items()), Rec("tap", "levels", floors)]

    (found,) = differing(levels([0, 1], [0.5, 1.0]), levels([0, 0], [0.5, 1.0 - 2.0**-20]))
    assert found.is_explained and found.worst.margin.quantity == "height"
    (found,) = differing(levels([0, 1], [0.5, 1.25]), levels([0, 2], [0.5, 1.25]))
    assert not found.is_explained
    assert witness_line(found) == "the new side rounds number 1 (1.25) to 2"
    (found,) = differing(levels([3, 1], [7.5, 1.25]), levels([4, 1], [7.5, 1.25]))
    assert not found.is_explained  # no number above the highest fits


def test_order_of_a_ranking_counts_only_where_it_was_asked_for(differing):
    def best(keep, *more):
        return [*dense(keep, [0.5, 0.75, 0.25]), *more]

    (found,) = differing(best([1, 0]), best([0, 1]))
    assert not found.is_explained
    unsorted = Rec("basis", "dense", False, "sorted")
    (found,) = differing(best([1, 0], unsorted), best([0, 1], unsorted))
    assert found.is_explained
    (found,) = differing(best([1, 0], unsorted), best([2, 1], unsorted))
    assert not found.is_explained


LOGITS = torch.tensor([0.5, -1.0, 2.0, -3.0, 0.25, -0.125, 4.0, 1.5])


@pytest.mark.parametrize(
    ("logits", "outcome"),
    [
        (LOGITS, MATCH),
        (LOGITS[:7], MISMATCH),  # so few may rise together by chance
        (LOGITS.index_fill(0, torch.tensor([3]), -INF), MISMATCH),
        (LOGITS.index_fill(0, torch.tensor([3]), NAN), MISMATCH),
    ],
    ids=["logits", "few", "infinite", "nan"],
)
def test_scores_that_rise_with_the_other_sides_rank_alike_if_they_are_finite_and_many(tmp_path, logits, outcome):
    def side(scores):
        return [Rec("basis", "dense", scores, "scores"), Rec("tap", "dense", [6, 2], "indices"), OUT]

    assert judged(tmp_path, side(logits), side(logits.sigmoid())).outcome == outcome
