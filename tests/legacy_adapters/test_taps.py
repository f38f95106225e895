"""A tap records a decision; a replayed decision is what the caller gets."""

import types

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from legacy_adapters.recording import taps
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter

COST = np.array([[1.0, 2.0], [0.5, 3.0]])


def use(tmp_path, tap_list, call, replay=None):
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    with taps.installed(tap_list, recorder, replay), recorder.in_phase("train"):
        result = call()
    return result, recorder.writer.records


def test_matching_is_recorded_under_its_name(tmp_path):
    owner = types.SimpleNamespace(linear_sum_assignment=linear_sum_assignment)
    result, records = use(tmp_path, [taps.matching_tap(owner, "match")], lambda: owner.linear_sum_assignment(COST))
    assert [r.tolist() for r in result] == [[0, 1], [1, 0]]
    assert [(r.kind, r.name, r.call, r.slot) for r in records] == [
        ("basis", "match", 0, "cost"),
        ("tap", "match", 0, "rows"),
        ("tap", "match", 0, "cols"),
    ]


def test_replayed_matching_is_returned_instead_of_the_computed_one(tmp_path):
    owner = types.SimpleNamespace(linear_sum_assignment=linear_sum_assignment)
    forced = {"train/match/0/rows": torch.tensor([0, 1]), "train/match/0/cols": torch.tensor([0, 1])}
    tap = taps.matching_tap(owner, "match")
    result, records = use(tmp_path, [tap], lambda: owner.linear_sum_assignment(COST), replay=forced)
    assert [r.tolist() for r in result] == [[0, 1], [0, 1]]
    # recorded is what the function itself decided, so that forcing cannot hide a wrong decision
    _, unforced = use(tmp_path / "free", [tap], lambda: owner.linear_sum_assignment(COST))
    assert [r.digest for r in records] == [r.digest for r in unforced]


def test_replay_without_the_decision_says_which_is_missing(tmp_path):
    owner = types.SimpleNamespace(linear_sum_assignment=linear_sum_assignment)
    with pytest.raises(taps.ReplayError, match="train/match/0/"):
        use(tmp_path, [taps.matching_tap(owner, "match")], lambda: owner.linear_sum_assignment(COST), replay={})


def test_draw_that_the_other_side_did_not_make_is_drawn_and_recorded(tmp_path):
    forced = {"train/noise/0/draw": torch.tensor([0.25, 0.5])}
    like = torch.zeros(2)
    result, records = use(
        tmp_path, taps.random_taps(), lambda: [torch.rand_like(like), torch.rand_like(like)], replay=forced
    )
    assert result[0].tolist() == [0.25, 0.5] and result[1].tolist() != result[0].tolist()
    assert [r.call for r in records if r.kind == "tap"] == [0, 1]


@pytest.mark.parametrize("draw", [lambda: torch.rand(2, 3), lambda: torch.rand_like(torch.zeros(2, 3))])
def test_replayed_draw_of_another_shape_takes_the_shape_asked_for(tmp_path, draw):
    forced = {"train/noise/0/draw": torch.tensor([0.25, 0.5])}
    result, _ = use(tmp_path, taps.random_taps(), draw, replay=forced)
    assert result.tolist() == [[0.25, 0.5, 0.25], [0.5, 0.25, 0.5]]


@pytest.mark.parametrize("decide", [True, False])
@pytest.mark.parametrize(("rows", "cols"), [([0, 2], [0, 1]), ([0, 1], [0, 2])], ids=["rows", "columns"])
def test_matching_that_does_not_fit_is_not_forced(tmp_path, rows, cols, decide):
    owner = types.SimpleNamespace(linear_sum_assignment=linear_sum_assignment)
    forced = {"train/match/0/rows": torch.tensor(rows), "train/match/0/cols": torch.tensor(cols)}
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    with taps.installed([taps.matching_tap(owner, "match")], recorder, forced, decide), recorder.in_phase("train"):
        result = owner.linear_sum_assignment(COST)
    assert [r.tolist() for r in result] == [[0, 1], [1, 0]]


def test_detections_that_do_not_fit_are_not_forced(tmp_path):
    forced = {"train/detections/0/indices": torch.tensor([3, 0])}
    scores = torch.tensor([0.1, 0.2, 0.3])
    (values, indices), _ = use(tmp_path, taps.rankings(), lambda: scores.topk(2), replay=forced)
    assert indices.tolist() == [2, 1]


def test_replayed_draw_takes_the_dtype_of_the_caller(tmp_path):
    forced = {"train/noise/0/draw": torch.tensor([0.25, 0.5])}
    result, _ = use(
        tmp_path, taps.random_taps(), lambda: torch.rand_like(torch.zeros(2, dtype=torch.float64)), replay=forced
    )
    assert result.dtype == torch.float64 and result.tolist() == [0.25, 0.5]


def test_replayed_detections_gather_the_callers_own_scores(tmp_path):
    forced = {"train/detections/0/indices": torch.tensor([2, 0])}
    scores = torch.tensor([0.1, 0.2, 0.3])
    (values, indices), _ = use(tmp_path, taps.rankings(), lambda: scores.topk(2), replay=forced)
    assert torch.equal(values, scores[[2, 0]]) and indices.tolist() == [2, 0]


def _sorted_tap(owner):
    """Watch a function that lists the best of some scores; what is forced is handed on as it is."""

    def basis(scores, count):
        return {"scores": scores}

    def read(result, scores, count):
        return {"keep": result}

    def write(decision, scores, count):
        return decision["keep"]

    return taps.Tap(owner, "best", lambda *args: "dense", read, write, basis=basis)


@pytest.mark.parametrize("decide", [True, False])
@pytest.mark.parametrize(("count", "given"), [(1, [2]), (2, [2, 0]), (3, [2, 0, 1]), (4, [2, 0, 1, 3])])
def test_replay_forces_which_are_listed_and_not_how_many(tmp_path, decide, count, given):
    """Else a port that asks for a wrong number would go on with the right one."""
    owner = types.SimpleNamespace(best=lambda scores, count: scores.argsort(descending=True)[:count])
    forced = {"train/dense/0/keep": torch.tensor([2, 0])}
    scores = torch.tensor([0.3, 0.4, 0.2, 0.1])
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    with taps.installed([_sorted_tap(owner)], recorder, forced, decide), recorder.in_phase("train"):
        assert owner.best(scores, count).tolist() == given


def test_functions_are_put_back_also_after_an_error(tmp_path):
    rand_like, topk = torch.rand_like, torch.Tensor.topk
    with pytest.raises(ZeroDivisionError):
        use(tmp_path, [*taps.random_taps(), *taps.rankings()], lambda: 1 / 0)
    assert torch.rand_like is rand_like and torch.Tensor.topk is topk


def test_draws_are_numbered_in_one_sequence_and_what_they_ask_for_is_recorded(tmp_path):
    def draw():
        like = torch.zeros(2, 3)
        torch.rand_like(like), torch.randint_like(like, 7), torch.randint_like(like, 1, 5), torch.rand((4, 1))

    _, records = use(tmp_path, taps.random_taps(), draw)
    assert [(r.call, r.slot) for r in records if r.kind == "basis"] == [
        (0, "rand_like.shape"),
        (1, "randint_like.shape"), (1, "randint_like.low"), (1, "randint_like.high"),
        (2, "randint_like.shape"), (2, "randint_like.low"), (2, "randint_like.high"),
        (3, "rand.shape"),
    ]  # fmt: skip


@pytest.mark.parametrize("call", [
    lambda x: torch.topk(input=x, k=2), lambda x: torch.sort(input=x, descending=True),
    lambda x: torch.argsort(input=x, descending=True), lambda x: torch.rand_like(input=x),
    lambda x: torch.rand(size=(3,)), lambda x: torch.randint_like(x, 2, high=5), lambda x: torch.randint_like(input=x, high=5),
    lambda x: torch.randint(low=1, high=5, size=(3,)), lambda x: torch.randint(high=5, size=(3,)),
    lambda x: torch.randint(2, high=5, size=(3,)), lambda x: x.uniform_(to=2), lambda x: x.normal_(std=2), lambda x: x.random_(7),
])  # fmt: skip
def test_arguments_may_be_given_by_name(tmp_path, call):
    records = use(tmp_path, [*taps.rankings(), *taps.random_taps()], lambda: call(torch.tensor([0.3, 0.1, 0.2])))[1]
    shapes = [record.shape for record in records if record.kind == "tap"]
    assert len(shapes) == 1 and len(shapes[0]) == 1


DISTANCES = torch.tensor([[3.0, 1.0], [1.0, 2.0], [2.0, 0.0]])


@pytest.mark.parametrize("rank", [
    lambda x: x.topk(2, dim=0, largest=False)[1], lambda x: x.sort(0)[1][:2], lambda x: x.argsort(dim=-2)[:2],
])  # fmt: skip
def test_ranking_along_another_axis_is_a_decision_along_the_last(tmp_path, rank):
    free, records = use(tmp_path, taps.rankings(), lambda: rank(DISTANCES))
    assert free.tolist() == [[1, 2], [2, 0]]
    basis, tap = records
    assert (basis.kind, basis.shape, tap.kind) == ("basis", (2, 3), "tap")
    forced = {"train/detections/0/indices": torch.tensor([[0, 2, 1], [1, 0, 2]])[:, : tap.shape[-1]]}
    assert use(tmp_path / "forced", taps.rankings(), lambda: rank(DISTANCES), forced)[0].tolist() == [[0, 1], [2, 0]]


def test_ranking_in_any_order_says_so(tmp_path):
    scores = torch.tensor([0.1, 0.3, 0.2])
    for call in (lambda: scores.topk(2, sorted=False), lambda: torch.topk(scores, 2, -1, True, False)):
        _, records = use(tmp_path / str(id(call)), taps.rankings(), call)
        assert [record.slot for record in records if record.kind == "basis"] == ["scores", "sorted"]
    _, records = use(tmp_path / "in order", taps.rankings(), lambda: scores.topk(2))
    assert [record.slot for record in records if record.kind == "basis"] == ["scores"]
