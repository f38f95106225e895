"""A decision on nearly equal numbers is a tie, any other decision is wrong."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ddq_port.ops.nms import batched_nms_keep
from parity.decisions.kinds import rule_of
from parity.decisions.rule import Margin

from .synthetic import INF, NAN

ERROR = 2.0**-10


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def indices(*values):
    return torch.tensor(values, dtype=torch.int64)


def margin(decision, basis, errors):
    return rule_of(basis).margin(decision, basis, errors)


def ranking_margin(chosen, scores, error):
    return margin({"indices": chosen}, {"scores": scores}, {"scores": error})


def matching_margin(rows, cols, cost, error):
    return margin({"rows": rows, "cols": cols}, {"cost": cost}, {"cost": error})


def nms_margin(keep, basis, box_error, score_error):
    return margin({"keep": keep}, basis, {"boxes": box_error, "scores": score_error})


def draw(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wobble(tensor, error, seed):
    """Return ``tensor`` with every element changed by at most ``error``, half of them by just that."""
    noise = draw(*tensor.shape, seed=seed) * 4 - 2
    return tensor + noise.clamp(-1, 1) * error


@pytest.mark.parametrize(
    ("value", "allowed", "is_tie"),
    [(0.0, 0.0, True), (0.5, 0.5, True), (0.5, 0.25, False), (INF, 1.0, False), (NAN, 1.0, False)],
    ids=str,
)
def test_margin_is_a_tie_up_to_what_the_error_explains(value, allowed, is_tie):
    assert Margin("score", value, allowed).is_tie is is_tie


def test_margin_reads_as_one_line():
    assert str(Margin("IoU", 0.0625, 0.125)) == "tie: IoU margin 0.062, error 0.12"
    assert str(Margin("cost", 0.5, 0.125)) == "no tie: cost margin 0.5, error 0.12"
    assert str(Margin("score", INF, 0.0)) == "no tie: score margin inf, error 0"


@pytest.mark.parametrize(
    ("chosen", "scores", "regret"),
    [
        # of the largest k in descending order nothing is to be regretted
        ([0, 2, 1], [0.875, 0.5, 0.75], 0.0),
        ([0, 2], [0.875, 0.5, 0.75], 0.0),
        ([0], [0.875, 0.5, 0.75], 0.0),
        ([], [0.875, 0.5], 0.0),
        ([], [], 0.0),
        ([0], [-1.0], 0.0),
        # left out 0.75 for 0.5
        ([0, 1], [0.875, 0.5, 0.75], 0.25),
        ([1], [0.875, 0.5, 0.75], 0.375),
        # the right ones in a wrong order: the score rises by 0.125
        ([2, 0], [0.875, 0.5, 0.75], 0.125),
        ([1, 2, 0], [0.875, 0.5, 0.75], 0.25),
        # both: rises by 0.25, leaves out what is 0.375 larger than the smallest
        ([1, 2], [0.875, 0.5, 0.75], 0.375),
        # exact ties in any order
        ([1, 0], [0.5, 0.5, 0.25], 0.0),
        ([2], [0.5, 0.5, 0.5], 0.0),
        # no choice at all
        ([0, 0], [0.875, 0.5, 0.75], INF),
        ([0, 3], [0.875, 0.5, 0.75], INF),
        ([-1], [0.875, 0.5, 0.75], INF),
        ([0], [], INF),
        ([0, 1, 2, 2], [0.875, 0.5, 0.75], INF),
    ],
    ids=str,
)
def test_regret_of_a_ranking(chosen, scores, regret):
    assert ranking_margin(indices(*chosen), f64(scores), 0.0).value == regret


def test_ranking_with_nan_is_no_tie():
    assert not ranking_margin(indices(0, 1), f64([1.0, NAN, 0.5]), 50.0).is_tie
    assert not ranking_margin(indices(0, 2), f64([1.0, NAN, 0.5]), 50.0).is_tie


COST = [[1.0, 2.0], [0.5, 3.0]]  # best: 2.0 + 0.5; the other: 1.0 + 3.0
WIDE = [[4.0, 1.0, 2.0], [4.0, 1.0, 4.0]]  # best: 2.0 + 1.0 in columns 2 and 1


@pytest.mark.parametrize(
    ("rows", "cols", "cost", "excess"),
    [
        ([0, 1], [1, 0], COST, 0.0),
        ([1, 0], [0, 1], COST, 0.0),
        ([0, 1], [0, 1], COST, 1.5),
        ([0, 1], [2, 1], WIDE, 0.0),
        ([0, 1], [1, 0], WIDE, 2.0),
        ([2, 1], [0, 1], list(zip(*WIDE)), 0.0),  # more rows than columns
        ([1, 0], [0, 1], list(zip(*WIDE)), 2.0),
        ([0, 1], [1, 0], [[1.0, 1.0], [1.0, 1.0]], 0.0),
        ([0], [0], [[-5.0]], 0.0),
        # not a matching of all
        ([0], [1], COST, INF),
        ([], [], COST, INF),
        ([0, 1], [1], COST, INF),
        ([0, 0], [0, 1], COST, INF),
        ([0, 1], [0, 0], COST, INF),
        ([0, 2], [0, 1], COST, INF),
        ([0, 1], [0, -1], COST, INF),
        ([0, 1, 2], [0, 1, 2], COST, INF),
    ],
    ids=str,
)
def test_excess_cost_of_a_matching(rows, cols, cost, excess):
    found = matching_margin(indices(*rows), indices(*cols), f64(cost), ERROR)
    assert found.quantity == "cost" and found.value == excess
    assert found.allowed == (0.0 if excess == INF else 2 * min(f64(cost).shape) * ERROR)
    assert found.is_tie is (excess == 0.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_matching_of_nothing(shape):
    assert matching_margin(indices(), indices(), torch.empty(shape, dtype=torch.float64), ERROR).is_tie
    assert not matching_margin(indices(0), indices(0), torch.empty(shape, dtype=torch.float64), ERROR).is_tie


@pytest.mark.parametrize(("gap", "is_tie"), [(4 * ERROR, True), (4.5 * ERROR, False)])
def test_matching_is_a_tie_up_to_twice_the_error_of_each_pair(gap, is_tie):
    cost = [[1.0, 1.0], [1.0, 1.0 + gap]]
    assert matching_margin(indices(0, 1), indices(0, 1), f64(cost), ERROR).is_tie is is_tie


def test_solver_may_be_off_by_its_own_rounding():
    # in exact arithmetic these doubles differ by 3e-17, which no sum in float64 shows
    cost = f64([[0.1, 0.2], [0.3, 0.4]])
    for cols in ([0, 1], [1, 0]):
        assert matching_margin(indices(0, 1), indices(*cols), cost, 0.0).value == 0.0
    assert matching_margin(indices(0, 1), indices(0, 1), f64([[0.1, 0.2], [0.3, 0.4 + 1e-12]]), 0.0).value > 0.0


def strip(height):
    """Return a box of width 1 whose IoU with the unit box is ``height``."""
    return [0.0, 0.0, 1.0, height]


def basis(boxes, scores, threshold=0.5, max_num=10):
    return dict(
        boxes=f64(boxes).reshape(-1, 4), scores=f64(scores), iou_threshold=f64(threshold), max_num=torch.tensor(max_num)
    )


UNIT, APART = strip(1.0), [4.0, 0.0, 5.0, 1.0]
#: 0 suppresses 1 (IoU 0.75), 2 lies elsewhere, 3 overlaps 0 by 0.25 only
SCENE = ([UNIT, strip(0.75), APART, strip(0.25)], [0.875, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    ("keep", "max_num", "quantity", "value"),
    [
        ([0, 2, 3], 10, "IoU", 0.0),
        ([0, 2, 3], 3, "IoU", 0.0),
        ([0, 2], 2, "IoU", 0.0),
        ([0], 1, "score", 0.0),
        # 1 is suppressed by 0 and kept: 0.75 - 0.5
        ([0, 1, 2, 3], 10, "IoU", 0.25),
        # 3 is missing: its largest overlap with a better kept one is 0.25
        ([0, 2], 10, "IoU", 0.25),
        # 2 is missing: it overlaps nothing
        ([0, 3], 10, "IoU", 0.5),
        # the order is wrong: 0.25 comes before 0.5, 0.5 before 0.875
        ([0, 3, 2], 10, "score", 0.25),
        ([2, 0, 3], 10, "score", 0.375),
        # cut after two, but 2 ranks before 3
        ([0, 3], 2, "IoU", 0.5),
        # longer than the limit, repeated, out of range, empty
        ([0, 2, 3], 2, "score", INF),
        ([0, 0], 10, "score", INF),
        ([0, 4], 10, "score", INF),
        ([-1, 0], 10, "score", INF),
        ([], 10, "score", INF),
    ],
    ids=str,
)
def test_what_breaks_the_rule_of_nms(keep, max_num, quantity, value):
    found = nms_margin(indices(*keep), basis(*SCENE, max_num=max_num), ERROR, ERROR)
    assert found.quantity == quantity and found.value == pytest.approx(value, abs=1e-12)
    assert found.is_tie is (value == 0.0)


@pytest.mark.parametrize("max_num", [1, 10])
def test_box_that_is_dropped_for_a_worse_one_is_no_tie(max_num):
    # 1 does not suppress 0, which has the better score, however much they overlap
    assert not nms_margin(indices(1), basis([UNIT, strip(0.75)], [0.875, 0.5], max_num=max_num), ERROR, ERROR).is_tie


def test_box_between_two_kept_ones_is_measured_against_the_better_one():
    # 1 overlaps 2 by 0.9 and 0 by 0.45: 2 is worse, so 1 had to be kept
    boxes = [strip(0.45), UNIT, strip(0.9)]
    found = nms_margin(indices(0, 2), basis(boxes, [0.875, 0.75, 0.5], threshold=0.6), ERROR, ERROR)
    assert not found.is_tie and found.value == pytest.approx(0.15)


def test_kept_box_is_measured_against_every_earlier_one():
    boxes = [UNIT, APART, strip(0.75)]
    found = nms_margin(indices(0, 1, 2), basis(boxes, [0.875, 0.75, 0.5]), ERROR, ERROR)
    assert not found.is_tie and found.value == pytest.approx(0.25)


def test_margin_of_an_explained_nms_is_its_largest_and_not_its_closest_to_the_limit():
    # small boxes overlap by 0.002 too much, which their error explains well; large ones by 0.001 too little
    small = [[4.0, 0.0, 4.0625, 0.0625], [4.0, 0.0, 4.0625, 0.0625 * 0.502]]
    found = nms_margin(
        indices(0, 1, 2, 3), basis([UNIT, strip(0.499), *small], [0.875, 0.75, 0.5, 0.25]), 2.0**-12, 0.0
    )
    assert found.is_tie and found.value == pytest.approx(0.002)


def test_every_one_of_many_dropped_boxes_is_looked_at():
    boxes = [UNIT, *[strip(0.75)] * 1100, APART]
    scores = torch.linspace(0.875, 0.5, len(boxes)).tolist()
    found = nms_margin(indices(0), basis(boxes, scores, max_num=2000), ERROR, 0.0)
    assert not found.is_tie and found.value == 0.5 and found.witness.startswith("drops 1101, ")


@pytest.mark.parametrize(
    ("keep", "witness"),
    [
        ([0, 2, 3], ""),
        ([0, 1, 2, 3], "keeps 1, though the kept 0 covers it with IoU 0.75, threshold 0.5"),
        ([0, 3], "drops 2, which no better kept box covers with more than IoU 0, threshold 0.5"),
        ([1, 2, 3], "drops 0, although no kept box has a better score"),
        ([2, 0, 3], "lists 2 (0.5) before 0 (0.875)"),
        ([], "keeps none of 4"),
    ],
    ids=str,
)
def test_witness_says_what_an_nms_does_wrong(keep, witness):
    assert nms_margin(indices(*keep), basis(*SCENE), 0.0, 0.0).witness == witness


def test_nms_of_nothing():
    assert nms_margin(indices(), basis([], []), ERROR, ERROR).is_tie
    assert not nms_margin(indices(0), basis([], []), ERROR, ERROR).is_tie


@pytest.mark.parametrize(("gap", "is_tie"), [(2 * ERROR, True), (2.5 * ERROR, False)])
def test_scores_of_nms_tie_up_to_twice_their_error(gap, is_tie):
    apart = [UNIT, APART]
    assert nms_margin(indices(1, 0), basis(apart, [0.5 + gap, 0.5]), 0.0, ERROR).is_tie is is_tie
    # of two that overlap, the other one may stay
    both = [UNIT, strip(0.75)]
    assert nms_margin(indices(1), basis(both, [0.5 + gap, 0.5]), 0.0, ERROR).is_tie is is_tie
    # of two that rank last, the other one may be cut
    assert nms_margin(indices(1), basis(apart, [0.5 + gap, 0.5], max_num=1), 0.0, ERROR).is_tie is is_tie


@pytest.mark.parametrize(("overlap", "is_tie"), [(0.5, True), (0.5 + 7 * ERROR, True), (0.5 + 20 * ERROR, False)])
def test_overlaps_tie_up_to_eight_errors_of_a_coordinate_over_the_smaller_extent(overlap, is_tie):
    # the extent is the height of the second box, about 0.5: 16 errors
    found = nms_margin(indices(0, 1), basis([UNIT, strip(overlap)], [0.75, 0.5]), ERROR, 0.0)
    assert found.is_tie is is_tie and found.value == pytest.approx(overlap - 0.5, abs=1e-12)
    if overlap > 0.5:
        assert found.allowed == pytest.approx(8 * (ERROR + 2.0**-23) / overlap, rel=1e-6)


@pytest.mark.parametrize(
    ("decision", "numbers", "error", "expected"),
    [
        (dict(keep=indices(1, 0)), dict(scores=f64([0.75, 0.5])), dict(scores=0.125), Margin("score", 0.25, 0.25)),
        (dict(indices=indices(0)), dict(scores=f64([0.75, 0.5])), dict(scores=0.0), Margin("score", 0.0, 0.0)),
        (dict(rows=indices(0, 1), cols=indices(0, 1)), dict(cost=f64(COST)), dict(cost=0.25), Margin("cost", 1.5, 1.0)),
        (
            dict(keep=indices(0, 2)),
            basis(*SCENE),
            dict(boxes=0.0, scores=0.0, iou_threshold=0.0, max_num=0.0),
            Margin("IoU", 0.25, 8 * 2.0**-23 / 0.25),
        ),
    ],
    ids=["dense", "detections", "match", "distinct"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_slots_tell_the_kind_of_decision(decision, numbers, error, expected, dtype):
    numbers = {slot: tensor.to(dtype) if slot != "max_num" else tensor for slot, tensor in numbers.items()}
    assert margin(decision, numbers, error) == expected


def test_margin_is_worked_out_in_double_precision():
    # in float32 2^24 + 1 is 2^24
    cost = torch.tensor([[2.0**24, 2.0**24], [0.0, 1.0]])
    found = margin(dict(rows=indices(0, 1), cols=indices(0, 1)), dict(cost=cost), dict(cost=0.0))
    assert found == Margin("cost", 1.0, 0.0)


def crowd(seed, count=40):
    """Return ``count`` boxes around a few places, so that many overlap by more and by less than any threshold."""
    centre = draw(4, 2, seed=seed)[torch.arange(count) % 4] + draw(count, 2, seed=seed + 1) * 0.1
    extent = 0.2 + draw(count, 2, seed=seed + 2) * 0.1
    return torch.cat([centre - extent / 2, centre + extent / 2], 1), draw(count, seed=seed + 3)


SEEDS = range(0, 80, 10)


@pytest.mark.parametrize("max_num", [5, 20, 1000])
@pytest.mark.parametrize("error", [1e-7, 1e-3, 1e-2])
def test_nms_of_numbers_within_the_error_is_a_tie(error, max_num):
    others = 0
    for seed in SEEDS:
        boxes, scores = crowd(seed)
        keep = batched_nms_keep(wobble(boxes, error, seed + 4), wobble(scores, error, seed + 5), 0.8, max_num)
        exact = batched_nms_keep(boxes, scores, 0.8, max_num)
        others += not torch.equal(keep, exact)
        numbers = basis(boxes.tolist(), scores.tolist(), 0.8, max_num)
        assert nms_margin(keep, numbers, error, error).is_tie, seed
        assert nms_margin(exact, numbers, 0.0, 0.0).is_tie, seed
    assert others or error < 1e-2  # else nothing was tried


def test_float32_nms_is_a_tie_on_the_same_boxes_in_float64():
    for seed in SEEDS:
        boxes, scores = (tensor.float() for tensor in crowd(seed))
        keep = batched_nms_keep(boxes, scores, 0.8)
        assert nms_margin(keep, basis(boxes.tolist(), scores.tolist(), 0.8, 1000), 0.0, 0.0).is_tie, seed


@pytest.mark.parametrize(("used", "right"), [(0.5, 0.8), (0.8, 0.5), (0.7, 0.8)])
@pytest.mark.parametrize("max_num", [20, 1000])
def test_nms_with_another_threshold_is_no_tie(used, right, max_num):
    wrong = 0
    for seed in SEEDS:
        boxes, scores = crowd(seed)
        keep = batched_nms_keep(boxes, scores, used, max_num)
        if not torch.equal(keep, batched_nms_keep(boxes, scores, right, max_num)):
            wrong += 1
            numbers = basis(boxes.tolist(), scores.tolist(), right, max_num)
            assert not nms_margin(keep, numbers, 1e-6, 1e-6).is_tie, seed
    assert wrong > len(SEEDS) / 2


def test_nms_of_other_scores_is_no_tie():
    for seed in SEEDS:
        boxes, scores = crowd(seed)
        keep = batched_nms_keep(boxes, scores.roll(1), 0.8)
        assert not nms_margin(keep, basis(boxes.tolist(), scores.tolist(), 0.8, 1000), 1e-6, 1e-6).is_tie, seed


def test_any_one_box_more_or_less_is_no_tie():
    boxes, scores = crowd(0)
    numbers = basis(boxes.tolist(), scores.tolist(), 0.8, 1000)
    keep = batched_nms_keep(boxes, scores, 0.8)
    for i in range(len(keep)):
        assert not nms_margin(torch.cat([keep[:i], keep[i + 1 :]]), numbers, 1e-7, 1e-7).is_tie, i
    for i in set(range(len(boxes))) - set(keep.tolist()):
        more = torch.cat([keep, indices(i)])
        more = more[scores[more].argsort(descending=True)]
        assert not nms_margin(more, numbers, 1e-7, 1e-7).is_tie, i


@pytest.mark.parametrize("error", [1e-7, 1e-3, 0.1])
def test_topk_of_numbers_within_the_error_is_a_tie(error):
    others = 0
    for seed in SEEDS:
        scores = draw(300, seed=seed)
        chosen = wobble(scores, error, seed + 1).topk(50)[1]
        others += not torch.equal(chosen, scores.topk(50)[1])
        assert ranking_margin(chosen, scores, error).is_tie, seed
        assert ranking_margin(scores.topk(50)[1], scores, 0.0).value == 0.0
        assert ranking_margin(scores.roll(1).topk(50)[1], scores, 0.0).value > 0.1
    assert others or error < 1e-3


@pytest.mark.parametrize("error", [1e-7, 1e-3, 0.1])
@pytest.mark.parametrize("shape", [(12, 12), (30, 7), (7, 30)], ids=str)
def test_matching_of_numbers_within_the_error_is_a_tie(error, shape):
    others = 0
    for seed in SEEDS:
        cost = draw(*shape, seed=seed) * 2 - 1
        best, wobbled, other = (
            [torch.from_numpy(side) for side in linear_sum_assignment(table)]
            for table in (cost, wobble(cost, error, seed + 1), -cost)
        )
        others += not torch.equal(wobbled[1], best[1])
        assert matching_margin(*wobbled, cost, error).is_tie, seed
        assert matching_margin(*best, cost, 0.0).value == 0.0, seed
        assert not matching_margin(*other, cost, 1e-3).is_tie, seed
    assert others or error < 0.1


@pytest.mark.parametrize(
    ("decision", "expected", "value"),
    [
        ([[0, 1]], [[2, 3]], None),
        ([[0]], [[2, 3]], 1),
        ([[0, 1, 2]], [[2]], 2),
        ([[0, 1], [0, 1, 2]], [[0, 1, 2], [0, 1]], 1),
        ([[]], [[0]], 1),
        # not as many lists: what does not fit its basis is no matter of length
        ([[0, 1], [1, 0]], [[0, 1]], None),
        ([[0, 1]], [[0, 1], [1, 0]], None),
    ],
    ids=str,
)
def test_decision_of_another_length_is_no_tie(decision, expected, value):
    one, two = ({str(i): indices(*chosen) for i, chosen in enumerate(lists)} for lists in (decision, expected))
    found = rule_of(["scores"]).length_margin(one, two)
    assert found == (None if value is None else Margin("length", value, 0)) and (value is None or not found.is_tie)
    assert rule_of(["scores", "boxes"]).length_margin(one, two) is None


def test_each_list_of_a_ranking_along_the_last_axis_is_a_decision_of_its_own():
    scores = f64([[0.5, 0.25, 0.75], [1.0, 3.0, 2.0]])
    right = scores.topk(2).indices
    assert ranking_margin(right, scores, ERROR) == Margin("score", 0.0, 2 * ERROR)
    wrong = right.clone()
    wrong[1] = wrong[1].flip(0)
    found = ranking_margin(wrong, scores, ERROR)
    assert found.value == 1.0 and found.witness == "in list 1 lists 2 (2) before 1 (3)" and not found.is_tie
    assert ranking_margin(right[:1], scores, ERROR).value == INF  # of other lists


def test_of_several_lists_the_closest_is_told():
    scores = f64([[0.5, 0.25, 0.75], [1.0, 3.0, 3.0 - 2.0**-20]])
    rule = rule_of({"scores": scores})
    ways = {way.name: way for way in rule.alternatives({"indices": scores.topk(2).indices}, {"scores": scores})}
    assert ways["order"].where == "list 1: 1 before 2" and ways["order"].gap == 2.0**-20
    assert ways["cut"].where == "list 0: 0 in, 1 out"


NO_CHOICE = "is not a choice from a list of scores"
HEIGHTS = dict(heights=f64([0.5, 1.25]), lowest=f64(0.0), highest=f64(3.0))


@pytest.mark.parametrize(
    ("decision", "numbers", "says"),
    [
        (dict(levels=indices(0)), HEIGHTS, "rounds 1 heights, not all"),
        (dict(levels=indices(0, 1), more=indices(0)), HEIGHTS, "is not a rounding of heights"),
        (dict(levels=indices(0, 1)), {"heights": HEIGHTS["heights"]}, "is not a rounding of heights"),
        (dict(keep=indices(0)), dict(boxes=f64(SCENE[0]), scores=f64(SCENE[1])), NO_CHOICE),
        (dict(indices=indices(0), values=indices(1)), dict(scores=f64([0.5, 0.25])), NO_CHOICE),
        (dict(rows=indices(0)), dict(cost=f64(COST)), "is not a matching of a table"),
    ],
    ids="length lists settings suppression ranking matching".split(),
)
def test_decision_that_does_not_fit_its_basis_is_no_tie(decision, numbers, says):
    found = margin(decision, numbers, dict.fromkeys(numbers, 1.0))
    assert (found.value, found.witness, found.is_tie) == (INF, says, False)


def test_rounding_of_no_heights_is_a_tie():
    nothing = {**HEIGHTS, "heights": f64([])}
    assert margin(dict(levels=indices()), nothing, dict.fromkeys(nothing, 0.0)) == Margin("height", 0.0, 0.0)


def test_rankings_are_cut_to_one_length_where_one_lists_all_scores():
    rule, numbers = rule_of(["scores"]), {"scores": f64([0.5, 0.25, 0.75])}
    every, best = {"indices": indices(2, 0, 1)}, {"indices": indices(2)}
    assert [one["indices"].tolist() for one in rule.aligned(every, best, numbers)] == [[2], [2]]
    more = {**every, "values": indices(1, 2, 3)}
    assert rule.aligned(more, best, numbers) == (more, best)  # which of the two is the ranking?
