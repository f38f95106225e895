"""Derived tolerance: as far from float64 as the legacy code itself, no farther, and in float64 nearly equal."""

import math

import pytest
import torch

from parity.comparing.compare import Tolerance
from parity.comparing.derived import CEILING, FACTOR, FLOAT64_SHARE, JUMP, LAST_PLACES, bound, examine
from parity.comparing.evidence import ZERO, Norms, Sample, TraceEvidence, norms, spreads
from parity.report.report_json import as_dict
from parity.verdict.verdict import MATCH, MISMATCH, judge

from .synthetic import INF, NAN, SAME_NAMES, Rec, write_trace

DERIVED = Tolerance("derived")
ULP = 2.0**-23


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_constants_are_what_the_hand_computed_cases_below_assume():
    assert (FACTOR, LAST_PLACES, CEILING, JUMP, FLOAT64_SHARE) == (8.0, 4 * ULP, 0.05, 0.5, 2.0**-20)


@pytest.mark.parametrize(
    ("values", "largest", "rms"),
    [
        ([3.0, -4.0], 4.0, math.sqrt(12.5)),
        (-2.0, 2.0, 2.0),
        ([0.0, 0.0], 0.0, 0.0),
        ([], 0.0, 0.0),
        ([NAN, INF, -INF], 0.0, 0.0),
        ([NAN, 3.0, -INF, -4.0], 4.0, math.sqrt(12.5)),
        ([[1.0, -1.0], [1.0, 7.0]], 7.0, math.sqrt(13.0)),
    ],
    ids=str,
)
def test_norms_are_over_what_is_finite(values, largest, rms):
    assert norms(f64(values)) == Norms(largest, pytest.approx(rms))


def test_norms_join_to_the_larger_of_each():
    assert Norms(1.0, 0.5) | Norms(2.0, 0.25) == Norms(2.0, 0.5)


@pytest.mark.parametrize(
    ("reference", "spread", "largest", "rms"),
    [
        # 8 * 2^-10 + 4 ulp * 4, and the same for the root mean square
        ([4.0, 0.0, 0.0, 0.0], Norms(2.0**-10, 2.0**-12), 2.0**-7 + 16 * ULP, 2.0**-9 + 8 * ULP),
        # without any spread a few units in the last place
        ([4.0, -4.0], ZERO, 16 * ULP, 16 * ULP),
        (1.0, ZERO, 4 * ULP, 4 * ULP),
        # at most 5 % of the size
        ([4.0, 0.0, 0.0, 0.0], Norms(0.0625, 2.0**-12), 0.2, 2.0**-9 + 8 * ULP),
        ([4.0, 0.0, 0.0, 0.0], Norms(0.0625, 0.03125), 0.2, 0.1),
        # but always twice the spread: what cancels to nothing has more rounding than size
        ([4.0, 4.0], Norms(0.25, 0.125), 0.5, 0.25),
        ([0.0, 0.0], Norms(1.0, 0.5), 2.0, 1.0),
        ([0.0, 0.0], ZERO, 0.0, 0.0),
        ([], ZERO, 0.0, 0.0),
        # what is not finite does not count
        ([INF, 4.0, NAN], ZERO, 16 * ULP, 16 * ULP),
    ],
    ids=str,
)
def test_bound(reference, spread, largest, rms):
    any_values = f64(reference)
    found = bound(Sample(any_values, any_values, spread, any_values, any_values))
    assert (found.max, found.rms) == (pytest.approx(largest, rel=1e-14), pytest.approx(rms, rel=1e-14))


def sample(reference, new=None, new_reference=None, legacy=None, spread=ZERO):
    """Make a sample in which every side that is not given equals the reference."""
    given = (reference if values is None else values for values in (legacy, new, new_reference))
    legacy, new, new_reference = map(f64, given)
    return Sample(legacy, f64(reference), spread, new, new_reference)


SPREAD = Norms(2.0**-10, 2.0**-10)  # of a record of size 1: bound 2^-7 + 2^-21, in float64 2^-27 + 2^-41
EDGE = 2.0**-7 + 2.0**-21
EDGE64 = EDGE * 2.0**-20


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (sample([1.0, -1.0], spread=SPREAD), ""),
        # the bound itself is inside, in both directions, and so is the same error of the legacy side or none
        (sample([1.0, -1.0], new=[1.0 + EDGE, -1.0], spread=SPREAD), ""),
        (sample([1.0, -1.0], new=[1.0 - EDGE, -1.0 - EDGE], spread=SPREAD), ""),
        (sample([1.0, -1.0], new=[1.0 + EDGE * 1.001, -1.0], spread=SPREAD), "max error 0.00782, allowed 0.00781"),
        (sample([1.0, -1.0], new=[1.0, -1.0 - 2.0**-6], spread=SPREAD), "max error 0.016, allowed 0.0078"),
        (sample(1.0, new=1.0 + EDGE, spread=SPREAD), ""),
        (sample(1.0, new=1.0 + 2.0**-6, spread=SPREAD), "max error 0.016, allowed 0.0078"),
        # the error is against the reference, not against the legacy side
        (sample([1.0], legacy=[1.0 + EDGE], new=[1.0 - EDGE], spread=SPREAD), ""),
        (sample([1.0], legacy=[2.0], new=[2.0], spread=SPREAD), "max error 1, allowed 0.0078"),
        # every element a little off: no single one is too far, their mean is
        (
            sample([1.0] * 4, new=[1.0 + 2.0**-8] * 4, spread=Norms(2.0**-10, 2.0**-13)),
            "rms error 0.0039, allowed 0.00098",
        ),
        (sample([1.0] * 4, new=[1.0 + 2.0**-8, 1.0, 1.0, 1.0], spread=Norms(2.0**-10, 2.0**-12)), ""),
        # float32 noise hides nothing in float64
        (sample([1.0, -1.0], new_reference=[1.0 + EDGE64, -1.0], spread=SPREAD), ""),
        (
            sample([1.0, -1.0], new_reference=[1.0 + 2.0**-26, -1.0], spread=SPREAD),
            "max error in float64 1.5e-08, allowed 7.5e-09",
        ),
        (
            sample([1.0, -1.0], new=[1.0 + 2.0**-20, -1.0], new_reference=[1.0 + 2.0**-20, -1.0], spread=SPREAD),
            "max error in float64 9.5e-07, allowed 7.5e-09",
        ),
        (
            sample([1.0] * 4, new_reference=[1.0 + 2.0**-28] * 4, spread=Norms(2.0**-10, 2.0**-13)),
            "rms error in float64 3.7e-09, allowed 9.3e-10",
        ),
        # the legacy side's own noise may be large, 5 % of the size is enough
        (sample([20.0], new=[21.0], spread=Norms(0.5, 0.5)), ""),
        (sample([20.0], new=[21.125], spread=Norms(0.5, 0.5)), "max error 1.1, allowed 1"),
        # zero is exact, unless it comes of a sum that cancels
        (sample([0.0, 0.0]), ""),
        (sample([0.0, 0.0], new=[0.0, 1e-30]), "max error 1e-30, allowed 0"),
        (sample([0.0, 0.0], new=[0.0, 2.0**-9], spread=SPREAD), ""),
        (sample([0.0, 0.0], new=[0.0, 2.0**-8], spread=SPREAD), "max error 0.0039, allowed 0.002"),
        (sample([]), ""),
        # NaN and Inf in the same places of either precision
        (sample([NAN, 1.0], new=[NAN, 1.0 + 2.0**-10], spread=SPREAD), ""),
        (sample([INF, -INF, 1.0], spread=SPREAD), ""),
        (sample([NAN, NAN]), ""),
        (sample([NAN, 1.0], new=[1.0, NAN]), "NaN or Inf in other places"),
        (sample([1.0, 1.0], new=[1.0, NAN]), "NaN or Inf in other places"),
        (sample([INF, 1.0], new=[1.0, 1.0]), "NaN or Inf in other places"),
        (sample([INF, 1.0], new=[-INF, 1.0]), "NaN or Inf in other places"),
        (sample([INF, 1.0], new=[NAN, 1.0]), "NaN or Inf in other places"),
        (sample([1.0, 1.0], new_reference=[1.0, NAN]), "NaN or Inf in other places in float64"),
        (sample([NAN, 1.0], new_reference=[1.0, NAN]), "NaN or Inf in other places in float64"),
        # where the legacy side overflows in float32 only, so must the new one
        (sample([1.0, 1.0], legacy=[1.0, INF], new=[1.0, INF], spread=SPREAD), ""),
        (sample([1.0, 1.0], legacy=[1.0, INF], spread=SPREAD), "NaN or Inf in other places"),
    ],
)
def test_objection(case, says):
    assert examine(case).objection == says


@pytest.mark.parametrize(
    ("spread", "allowed"),
    [(ZERO, Norms(2.0, 1.0)), (SPREAD, Norms(2.0, 1.0)), (Norms(9.0, 9.0), Norms(18.0, 18.0))],
    ids=str,
)
def test_bound_of_a_gradient_is_half_its_size_or_twice_the_spread(spread, allowed):
    any_values = f64([4.0, 0.0, 0.0, 0.0])
    assert bound(Sample(any_values, any_values, spread, any_values, any_values), gradient=True) == allowed


@pytest.mark.parametrize(
    ("case", "says"),
    [
        # a jump in float32, of one element or of all
        (sample([4.0, 0.0, 0.0, 0.0], new=[4.0, 0.0, 0.0, 2.0]), ""),
        (sample([4.0, 0.0, 0.0, 0.0], new=[4.0, 0.0, 0.0, 2.125]), "max error 2.1, allowed 2"),
        (sample([4.0, 0.0, 0.0, 0.0], new=[4.0, 1.0, 1.0, 1.75]), "rms error 1.1, allowed 1"),
        (sample([1.0], new=[-1.0]), "max error 2, allowed 0.5"),
        # the bound in float64 is as sharp as any: 4 ulp of 4 times 2^-20 are 2^-39
        (sample([4.0, 0.0], new=[5.0, 0.0], new_reference=[4.0 + 2.0**-39, 0.0]), ""),
        (sample([4.0, 0.0], new_reference=[4.0 + 2.0**-38, 0.0]), "max error in float64 3.6e-12, allowed 1.8e-12"),
        (sample([4.0], new_reference=[4.0 + 2.0**-27], spread=SPREAD), ""),
        (sample([4.0], new_reference=[4.0 + 2.0**-26], spread=SPREAD), "max error in float64 1.5e-08, allowed 7.5e-09"),
        (sample([0.0, 0.0], new=[0.0, 1e-30]), "max error 1e-30, allowed 0"),
        (sample([NAN, 1.0], new=[1.0, NAN]), "NaN or Inf in other places"),
        (sample([1.0, 1.0], new_reference=[1.0, INF]), "NaN or Inf in other places in float64"),
    ],
)
def test_objection_to_a_gradient(case, says):
    assert examine(case, gradient=True).objection == says


def test_legacy_side_never_objects_to_itself():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        reference = torch.randn(100, generator=generator, dtype=torch.float64)
        legacy = reference + torch.randn(100, generator=generator, dtype=torch.float64) * 1e-6
        assert examine(Sample(legacy, reference, norms(legacy - reference), legacy, reference)).objection == ""


def test_spread_is_the_largest_error_of_all_runs(tmp_path):
    def trace(name, *values):
        records = [Rec("module_out", f"m{i}", value) for i, value in enumerate(values)]
        return write_trace(tmp_path / name, *records)

    reference = trace("reference", f64([1.0, 1.0]), f64([2.0]), torch.tensor([1]))
    one = trace("one", [1.5, 1.0], [2.0], torch.tensor([2]))
    two = trace("two", [1.25, 1.25], [1.0], torch.tensor([3]))
    # of another shape, as what has a score on the other side of a threshold: it says nothing
    three = trace("three", [1.0, 1.0, 9.0], [2.5], torch.tensor([4]), [7.0])
    found = spreads(iter([one, two, three]), reference)
    assert found == {
        ("train", "module_out", "m0", 0, ""): Norms(0.5, math.sqrt(0.125)),  # of two the rms is 0.25
        ("train", "module_out", "m1", 0, ""): Norms(1.0, 1.0),
    }
    rms = spreads([trace("even", [1.375, 1.375])], reference)
    assert rms["train", "module_out", "m0", 0, ""] == Norms(0.375, 0.375)


def test_each_run_is_let_go_before_the_next_is_made(tmp_path):
    made = []

    def runs():
        for name in "ab":
            made.append(name)
            yield write_trace(tmp_path / name, Rec("loss", "total", 1.0 + len(made)))
            made.append(f"{name} done")

    reference = write_trace(tmp_path / "reference", Rec("loss", "total", f64(1.0)))
    assert spreads(runs(), reference) == {("train", "loss", "total", 0, ""): Norms(3.0, 3.0)}
    assert made == ["a", "a done", "b", "b done"]


def widened(records, **other):
    """Return the float64 twins of ``records``; ``other`` replaces values by name."""
    twins = []
    for record in records:
        tensor = record.tensor.double() if record.tensor.is_floating_point() else record.tensor
        name = record.name if not record.slot else f"{record.name}_{record.slot}"
        twins.append(Rec(record.kind, record.name, other.get(name, tensor), record.slot, record.call, record.phase))
    return twins


@pytest.fixture
def judged(tmp_path):
    """Return a function that judges hand-written traces under a derived tolerance."""

    def call(legacy, new, reference=None, new_reference=None, runs=()):
        reference = widened(legacy) if reference is None else reference
        sides = dict(
            legacy=legacy, reference=reference, new=new,
            new_reference=reference if new_reference is None else new_reference,
        )  # fmt: skip
        traces = {name: write_trace(tmp_path / name, *records) for name, records in sides.items()}
        more = [write_trace(tmp_path / f"run{i}", *records) for i, records in enumerate(runs)]
        spread = spreads([traces["legacy"], *more], traces["reference"])
        evidence = TraceEvidence(spread=spread, **traces)
        return judge(traces["legacy"], traces["new"], SAME_NAMES, (), DERIVED, evidence)

    return call


OUT = Rec("module_out", "neck", [1.0, 2.0, -4.0])
SAME = Rec("module_out", "backbone", [1.0])


def out(*values):
    return Rec("module_out", "neck", list(values))


def rejected(verdict):
    return {(c.pair.new.kind, c.pair.new.name, c.pair.new.slot): c.difference.note for c in verdict.comparisons
            if not c.accepted}  # fmt: skip


def test_noise_is_accepted_and_measured(judged):
    verdict = judged([SAME, OUT], [SAME, out(1.0 + ULP, 2.0, -4.0)])
    assert verdict.outcome == MATCH and verdict.exit_code == 0
    same, near = verdict.comparisons
    assert same.identical and not near.identical and near.accepted
    assert (near.difference.max_abs, near.difference.note) == (ULP, "")


def test_more_than_noise_is_rejected(judged):
    # 4 ulp of the largest value, 4, are 16 ulp of 1
    verdict = judged([SAME, OUT], [SAME, out(1.0 + 17 * ULP, 2.0, -4.0)])
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "neck"
    assert rejected(verdict) == {("module_out", "neck", ""): "max error 2e-06, allowed 1.9e-06"}


def test_noise_of_the_legacy_side_is_room_for_the_new_one(judged):
    near = [SAME, out(1.0 + 100 * ULP, 2.0, -4.0)]
    assert judged([SAME, OUT], near, runs=[[SAME, out(1.0, 2.0 + 16 * ULP, -4.0)]]).outcome == MATCH


@pytest.mark.parametrize(("kind", "outcome"), [("grad", MATCH), ("loss", MISMATCH), ("module_out", MISMATCH)])
def test_jump_in_float32_is_accepted_of_gradients_only(judged, kind, outcome):
    legacy, new = Rec(kind, "m", [1.0, 2.0]), Rec(kind, "m", [1.25, 2.0])
    assert judged([SAME, legacy], [SAME, new]).outcome == outcome


def test_gradient_must_be_sharp_in_float64(judged):
    legacy, new = Rec("grad", "m", [1.0, 2.0]), Rec("grad", "m", [1.25, 2.0])
    other = widened([SAME, legacy], m=f64([1.0 + 2.0**-30, 2.0]))
    verdict = judged([SAME, legacy], [SAME, new], new_reference=other)
    assert verdict.outcome == MISMATCH
    assert rejected(verdict) == {("grad", "m", ""): "max error in float64 9.3e-10, allowed 9.1e-13"}


def test_float64_twin_of_another_shape_is_no_twin(judged):
    other = widened([SAME, OUT], neck=f64([1.0, 2.0]))
    verdict = judged([SAME, OUT], [SAME, out(1.0 + ULP, 2.0, -4.0)], new_reference=other)
    assert rejected(verdict) == {("module_out", "neck", ""): "a float64 twin is missing"}


def test_difference_that_only_float64_shows_is_rejected(judged):
    other = widened([SAME, OUT], neck=f64([1.0 + 2.0**-30, 2.0, -4.0]))
    verdict = judged([SAME, OUT], [SAME, out(1.0 + ULP, 2.0, -4.0)], new_reference=other)
    assert verdict.outcome == MISMATCH
    assert rejected(verdict) == {("module_out", "neck", ""): "max error in float64 9.3e-10, allowed 1.8e-12"}


@pytest.mark.parametrize("side", ["reference", "new_reference"])
def test_record_without_a_twin_in_float64_is_rejected(judged, side):
    near = [SAME, out(1.0 + ULP, 2.0, -4.0)]
    verdict = judged([SAME, OUT], near, **{"reference": widened([SAME, OUT]), side: widened([SAME])})
    assert verdict.outcome == MISMATCH
    assert rejected(verdict) == {("module_out", "neck", ""): "a float64 twin is missing"}


def test_weights_must_be_identical(judged):
    def weight(value):
        return Rec("param", "fc.weight", [value], phase="weights")

    assert judged([weight(1.0), OUT], [weight(1.0), OUT]).outcome == MATCH


def test_weights_that_differ_in_the_last_bit_are_rejected(judged):
    def weight(value):
        return Rec("param", "fc.weight", [value], phase="weights")

    verdict = judged([weight(1.0), OUT], [weight(1.0 + ULP), OUT], runs=[[weight(1.5), OUT]])
    assert verdict.outcome == MISMATCH and rejected(verdict) == {("param", "fc.weight", ""): "other weights"}


@pytest.mark.parametrize("kind", ["module_out", "module_in", "loss", "grad", "basis"])
@pytest.mark.parametrize(("one", "two"), [([1, 2], [1, 3]), ([True], [False])], ids=str)
def test_whole_numbers_and_booleans_that_are_no_decision_are_rejected(judged, kind, one, two):
    verdict = judged([SAME, Rec(kind, "m", one)], [SAME, Rec(kind, "m", two)])
    assert verdict.outcome == MISMATCH
    assert rejected(verdict) == {(kind, "m", ""): "other whole numbers or booleans"}


def test_whole_numbers_of_a_tap_without_basis_are_rejected(judged):
    def result(*labels):
        return [Rec("tap", "result", list(labels), "labels"), Rec("tap", "result", [0.5, 0.25], "scores")]

    verdict = judged([SAME, *result(1, 2)], [SAME, *result(1, 3)])
    assert verdict.outcome == MISMATCH
    assert rejected(verdict) == {("tap", "result", "labels"): "other whole numbers or booleans"}


@pytest.mark.parametrize(
    ("new", "note"),
    [
        (Rec("module_out", "neck", [[1.0, 2.0, -4.0]]), "F32[3] became F32[1, 3]"),
        (Rec("module_out", "neck", f64([1.0, 2.0, -4.0])), "F32[3] became F64[3]"),
    ],
    ids=["shape", "dtype"],
)
def test_other_shape_or_dtype_is_rejected(judged, new, note):
    assert rejected(judged([SAME, OUT], [SAME, new])) == {("module_out", "neck", ""): note}


def selection(keep, scores):
    return [Rec("basis", "dense", scores, "scores"), Rec("tap", "dense", keep, "keep")]


def matching(cols, cost):
    return [
        Rec("basis", "match", cost, "cost"),
        Rec("tap", "match", [0, 1], "rows"),
        Rec("tap", "match", cols, "cols"),
    ]


def distinct(keep, boxes):
    numbers = dict(boxes=boxes, scores=[0.875, 0.75], iou_threshold=0.5, max_num=1)
    return [Rec("basis", "distinct", value, slot) for slot, value in numbers.items()] + [
        Rec("tap", "distinct", keep, "keep")
    ]


UNIT, APART = [0.0, 0.0, 1.0, 1.0], [4.0, 0.0, 5.0, 1.0]


@pytest.mark.parametrize(
    ("legacy", "new", "note"),
    [
        # errors: 4 ulp of 0.5, twice
        (
            selection([0, 1], [0.5, 0.25, 0.5 - ULP / 4]),
            selection([2, 1], [0.5 - ULP / 4, 0.25, 0.5]),
            "no tie: score margin 0.25, error 4.8e-07",
        ),
        (
            selection([0, 2], [0.5, 0.25, 0.5 - ULP / 4]),
            selection([2, 0], [0.5 - ULP / 4, 0.25, 0.5]),
            "tie: score margin 3e-08, error 4.8e-07",
        ),
        (
            selection([0], [0.5, 0.5 - ULP / 4]),
            selection([1], [0.5 - ULP / 4, 0.5]),
            "tie: score margin 3e-08, error 4.8e-07",
        ),
        # of two rows, 4 ulp of 2, twice
        (
            matching([0, 1], [[1.0, 2.0], [1.0, 2.0]]),
            matching([1, 0], [[1.0, 2.0 - ULP], [1.0, 2.0]]),
            "tie: cost margin 1.2e-07, error 3.8e-06",
        ),
        (
            matching([0, 1], [[1.0, 2.0], [1.0, 2.0 + 2.0**-10]]),
            matching([1, 0], [[1.0, 2.0], [1.0, 2.0 + 2.0**-10]]),
            "no tie: cost margin 0.00098, error 3.8e-06",
        ),
    ],
    ids=["wrong choice", "order", "choice", "matching", "wrong matching"],
)
def test_decision_is_accepted_if_it_is_a_tie(judged, legacy, new, note):
    verdict = judged([SAME, *legacy], [SAME, *new])
    is_tie = note.startswith("tie")
    assert verdict.outcome == (MATCH if is_tie else MISMATCH)
    decided = [c for c in verdict.comparisons if c.pair.new.kind == "tap" and not c.identical]
    assert decided and all(c.accepted is is_tie and c.difference.note == note for c in decided)
    (told,) = verdict.decisions
    assert told.accepted is told.is_explained is is_tie and told.allowance == "derived error"
    assert told.reading == "a tie" if is_tie else told.reading.startswith("no tie")
    assert all(note.endswith(f"error {trial.margin.allowed:.2g}") for trial in told.trials)


def test_draw_of_another_dtype_is_no_decision_and_rejected_if_its_values_differ(judged):
    def noise(values):
        return [Rec("basis", "noise", [2], "rand.shape"), Rec("tap", "noise", torch.tensor(values), "draw")]

    assert judged([SAME, *noise([1.0, 0.0])], [SAME, *noise([1, 0])]).outcome == MATCH
    verdict = judged([SAME, *noise([1.0, 0.5])], [SAME, *noise([1, 0])])
    assert verdict.outcome == MISMATCH and rejected(verdict) == {("tap", "noise", "draw"): "F32[2] became I64[2]"}


def test_other_slots_of_a_decision_are_no_tie(judged):
    legacy, new = matching([1, 0], [[1.0, 2.0], [0.5, 3.0]]), matching([1, 0], [[1.0, 2.0], [0.5, 3.0]])
    new[1] = Rec("tap", "match", [1, 0], "rows")
    verdict = judged([SAME, legacy[0], legacy[1]], [SAME, *new])
    assert verdict.outcome == MISMATCH
    (told,) = verdict.decisions
    assert not told.is_explained and told.reading.startswith("no tie")


@pytest.mark.parametrize(
    ("legacy", "new", "quantity"),
    [
        (selection([0], [0.5, 0.25]), selection([1], [0.5, 0.25]), "score"),
        (matching([1, 0], [[1.0, 2.0], [0.5, 3.0]]), matching([0, 1], [[1.0, 2.0], [0.5, 3.0]]), "cost"),
        (distinct([0], [UNIT, APART]), distinct([1], [UNIT, APART]), "IoU"),
    ],
    ids=["dense", "match", "distinct"],
)
def test_new_side_that_decides_wrongly_on_the_right_numbers_is_rejected(judged, legacy, new, quantity):
    verdict = judged([SAME, *legacy], [SAME, *new])
    assert verdict.outcome == MISMATCH
    assert all(note.startswith(f"no tie: {quantity} margin") for note in rejected(verdict).values())


def test_error_of_a_basis_is_the_legacy_sides_own(judged):
    # scores 2^-12 apart are no tie, unless other runs of the legacy side are as far from float64
    legacy, new = selection([0], [0.5 + 2.0**-12, 0.5]), selection([1], [0.5, 0.5 + 2.0**-12])
    exact = widened(legacy, dense_scores=f64([0.5, 0.5]))
    verdict = judged([SAME, *legacy], [SAME, *new], reference=widened([SAME]) + exact)
    assert verdict.outcome == MATCH
    (choice,) = (c for c in verdict.comparisons if c.pair.new.kind == "tap")
    assert choice.difference.note == "tie: score margin 0.00024, error 0.0039"  # 2 * 8 * 2^-12


def test_equal_decision_of_another_dtype_is_no_tie(judged):
    basis, keep = selection([1, 0], [0.25, 0.5])
    other = Rec(keep.kind, keep.name, keep.tensor.int(), keep.slot, keep.call, keep.phase)
    verdict = judged([SAME, basis, keep], [SAME, basis, other])
    assert verdict.outcome == MISMATCH and list(rejected(verdict).values()) == ["I64[2] became I32[2]"]


def test_nms_that_keeps_another_box_is_no_tie(judged):
    verdict = judged([SAME, *distinct([1], [UNIT, APART])], [SAME, *distinct([0], [UNIT, APART])])
    assert verdict.outcome == MISMATCH and "no tie" in rejected(verdict)["tap", "distinct", "keep"]


def test_decision_of_another_call_is_not_mixed_in(judged):
    def calls(first, second, near):
        return [
            Rec("basis", "dense", [0.5, near], "scores", call=0), Rec("tap", "dense", first, "keep", call=0),
            Rec("basis", "dense", [0.25, 0.75], "scores", call=1), Rec("tap", "dense", second, "keep", call=1),
        ]  # fmt: skip

    verdict = judged([SAME, *calls([0], [1], 0.5)], [SAME, *calls([1], [1], 0.5 + ULP)])
    assert verdict.outcome == MATCH


def test_what_was_measured_and_allowed_can_be_read_in_the_finding():
    found = examine(sample([4.0, 0.0], new=[4.0, 1.0], new_reference=[4.0, 0.5], spread=Norms(0.0625, 0.03125)))
    assert (found.error.max, found.error64.max, found.allowed.max) == (1.0, 0.5, 0.2)
    assert found.allowed64.max == (0.5 + 16 * ULP) * FLOAT64_SHARE
    assert found.objection.startswith("max error 1,")


def test_report_gives_ties_measurements_and_the_numbers_used(judged):
    records = [OUT, *selection([0, 1], [0.5, 0.5])]
    verdict = judged(records, [out(1.0, 2.0, -3.0), *selection([1, 0], [0.5, 0.5])])
    found = as_dict(verdict)
    assert found["ties"] == ["train dense#0 keep: tie: score margin 0, error 4.8e-07"]
    assert found["tolerance"] == {
        "name": "derived", "factor": 8.0, "last_places": 2.0**-21, "ceiling": 0.05, "gradient_ceiling": 0.5,
        "square_ceiling": 1.25, "moves": 2.0, "remains": 2.0**-10, "float64_share": 2.0**-20, "loose": 0.01,
    }  # fmt: skip
    (neck,) = (entry for entry in found["differing"] if entry["name"] == "neck")
    assert neck["derived"]["error"]["max"] == 1.0 and not neck["accepted"]
