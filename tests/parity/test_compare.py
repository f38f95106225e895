"""What counts as equal, and what is said about a difference."""

import math

import pytest
import torch

from parity.comparing.compare import Tolerance, compare_all, measure
from parity.comparing.pairing import pair

from .synthetic import EXACT, INF, NAN, SAME_NAMES, Rec, write_trace

TIGHT = Tolerance("fixed", rtol=0.0, atol=1e-6)
LOOSE = Tolerance("fixed", rtol=0.5, atol=100.0)
F32_TINY = 2.0**-149  # the smallest float32 above zero


@pytest.fixture
def compared(tmp_path):
    """Return a function that writes one record per side and compares the pair."""

    def compare(legacy, new, tolerance):
        one = write_trace(tmp_path / "legacy", Rec("module_out", "m", legacy))
        two = write_trace(tmp_path / "new", Rec("module_out", "m", new))
        (result,) = compare_all(one, two, pair(one.records, two.records, SAME_NAMES, ()).pairs, tolerance)
        return result

    return compare


def f16(*values):
    return torch.tensor(values, dtype=torch.float16)


def bf16(*values):
    return torch.tensor(values, dtype=torch.bfloat16)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("tolerance", [EXACT, TIGHT, LOOSE], ids=["exact", "tight", "loose"])
@pytest.mark.parametrize(
    "values",
    [
        3.0,
        [1.0],
        [[1.0, 2.0], [3.0, 4.0]],
        torch.empty(0),
        torch.empty(0, 4),
        torch.empty(0, dtype=torch.int64),
        [NAN, 1.0],
        [INF, -INF],
        [-0.0],
        [1, 2],
        True,
        bf16(1.0, 2.0),
    ],
    ids=str,
)
def test_same_bits_are_identical(compared, values, tolerance):
    copy = values.clone() if isinstance(values, torch.Tensor) else values
    result = compared(values, copy, tolerance)
    assert result.identical and result.accepted and result.difference is None


@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        ([1.0, 2.0], [1.0, 2.0000002]),
        ([0.0], [F32_TINY]),
        ([0.0], [-0.0]),
        (1.0, 1.0000001),
        ([NAN, 1.0], [1.0, NAN]),
        ([1.0, NAN], [1.0, 1.0]),
        (bf16(1.0), bf16(1.0078125)),
        (f64(1.0), f64(1.0 + 2.0**-52)),
        ([1, 2], [1, 3]),
        ([True], [False]),
    ],
    ids=str,
)
def test_exact_rejects_any_other_bit(compared, legacy, new):
    result = compared(legacy, new, EXACT)
    assert not result.identical and not result.accepted and result.difference is not None


@pytest.mark.parametrize(
    ("legacy", "new", "rtol", "atol", "accepted"),
    [
        # |1.5 - 1| = 0.5, exact in binary: the bound itself is inside
        ([1.0], [1.5], 0.0, 0.5, True),
        ([1.0], [1.5], 0.0, 0.4999, False),
        ([1.0], [0.5], 0.0, 0.5, True),
        # the relative part is of the legacy value: 0.5 * |2| = 1 lets 3 pass; 0.5 * |3.25| would let 3.25 pass too
        ([2.0], [3.0], 0.5, 0.0, True),
        ([2.0], [3.25], 0.5, 0.0, False),
        ([-2.0], [-3.0], 0.5, 0.0, True),
        ([-2.0], [2.0], 0.5, 0.0, False),
        # both parts add up: 0.25 + 0.5 * 2 = 1.25
        ([2.0], [3.25], 0.5, 0.25, True),
        ([2.0], [3.5], 0.5, 0.25, False),
        # nothing relative to zero
        ([0.0], [1e-3], 0.5, 0.0, False),
        # one element too many is enough, wherever it stands
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.5], 0.0, 0.25, False),
        # a zero-dimensional and a one-element tensor
        (1.0, 1.5, 0.0, 0.5, True),
        (1.0, 1.5, 0.0, 0.25, False),
        # the sign of zero is a bit, not a distance
        ([0.0], [-0.0], 0.0, 0.0, True),
        # neighbours in the half formats: 2**-7 apart and 2**-10 apart
        (bf16(1.0), bf16(1.0078125), 0.0, 0.0078125, True),
        (bf16(1.0), bf16(1.0078125), 0.0, 0.0078, False),
        (f16(1.0), f16(1.0009765625), 0.0, 0.0009765625, True),
        (f16(1.0), f16(1.0009765625), 0.0, 0.0009, False),
        # a gap that float16 or float32 arithmetic would round away
        (f16(60000.0), f16(-60000.0), 0.0, 119999.0, False),
        (f64(1.0), f64(1.0 + 1e-12), 0.0, 1e-13, False),
    ],
    ids=str,
)
def test_fixed_accepts_up_to_atol_plus_rtol_times_legacy(compared, legacy, new, rtol, atol, accepted):
    result = compared(legacy, new, Tolerance("fixed", rtol, atol))
    assert result.accepted is accepted and not result.identical


@pytest.mark.parametrize(
    ("legacy", "new", "accepted"),
    [
        ([NAN, 1.0], [NAN, 1.5], True),
        ([NAN, 1.0], [1.0, 1.0], False),
        ([1.0, 1.0], [NAN, 1.0], False),
        ([NAN, 1.0], [1.0, NAN], False),
        ([INF, 1.0], [INF, 1.5], True),
        ([INF, 1.0], [1.0, INF], False),
        ([INF, 1.0], [-INF, 1.0], False),
        ([INF, 1.0], [3e38, 1.0], False),
        ([3e38, 1.0], [INF, 1.0], False),
        ([INF, 1.0], [NAN, 1.0], False),
    ],
    ids=str,
)
def test_fixed_wants_nan_and_inf_in_the_same_places_however_loose(compared, legacy, new, accepted):
    assert compared(legacy, new, LOOSE).accepted is accepted


@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        ([10, 20], [10, 21]),
        (torch.tensor([7], dtype=torch.int32), torch.tensor([8], dtype=torch.int32)),
        (torch.tensor([255], dtype=torch.uint8), torch.tensor([254], dtype=torch.uint8)),
        ([True, False], [True, True]),
        (5, 6),
        ([2**60], [2**60 + 1]),
    ],
    ids=str,
)
def test_whole_numbers_and_booleans_are_exact_under_any_tolerance(compared, legacy, new):
    assert not compared(legacy, new, LOOSE).accepted


@pytest.mark.parametrize("tolerance", [EXACT, LOOSE], ids=["exact", "loose"])
@pytest.mark.parametrize(
    ("legacy", "new", "note"),
    [
        ([1.0], f64(1.0), "F32[1] became F64[1]"),
        ([1.0], bf16(1.0), "F32[1] became BF16[1]"),
        (f16(1.0), bf16(1.0), "F16[1] became BF16[1]"),
        ([1], [1.0], "I64[1] became F32[1]"),
        ([True], [1], "BOOL[1] became I64[1]"),
        ([1.0], [[1.0]], "F32[1] became F32[1, 1]"),
        ([1.0, 1.0], [[1.0, 1.0]], "F32[2] became F32[1, 2]"),
        (torch.zeros(2, 3), torch.zeros(3, 2), "F32[2, 3] became F32[3, 2]"),
        (torch.zeros(2, 3), torch.zeros(1, 3), "F32[2, 3] became F32[1, 3]"),
        (torch.zeros(0, 4), torch.zeros(0, 5), "F32[0, 4] became F32[0, 5]"),
        (torch.zeros(0, 4), torch.zeros(1, 4), "F32[0, 4] became F32[1, 4]"),
    ],
    ids=str,
)
def test_other_dtype_or_shape_is_rejected_and_named(compared, legacy, new, note, tolerance):
    result = compared(legacy, new, tolerance)
    assert not result.accepted and result.difference.note == note
    assert math.isnan(result.difference.max_abs) and result.difference.differing == 1.0


@pytest.mark.parametrize(
    ("legacy", "new", "max_abs", "differing", "note"),
    [
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 3.0, 2.0], 2.0, 0.5, ""),
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.25]], 0.25, 0.25, ""),
        ([-1.0], [1.0], 2.0, 1.0, ""),
        (1.0, 4.0, 3.0, 1.0, ""),
        (bf16(1.0, 1.0), bf16(1.0, 1.0078125), 0.0078125, 0.5, ""),
        (f16(60000.0), f16(-60000.0), 120000.0, 1.0, ""),  # beyond the range of float16
        ([0.0, 1.0], [-0.0, 1.0], 0.0, 0.0, "signs of zero or payloads of NaN differ"),
        ([NAN, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.5], 0.5, 0.5, "1 NaN on one side only"),
        ([NAN, 1.0], [1.0, NAN], 0.0, 1.0, "2 NaN on one side only"),
        ([NAN, 1.0], [NAN, 3.0], 2.0, 0.5, ""),
        ([NAN, NAN], [1.0, 2.0], 0.0, 1.0, "2 NaN on one side only"),
        ([INF, 1.0], [1.0, INF], 0.0, 1.0, "2 Inf against another value"),
        ([INF, 1.0, 0.0, 0.0], [-INF, 1.0, 0.0, 0.0], 0.0, 0.25, "1 Inf against another value"),
        ([INF, 1.0], [INF, 1.25], 0.25, 0.5, ""),
        ([INF, NAN], [1.0, 1.0], 0.0, 1.0, "1 NaN on one side only, 1 Inf against another value"),
        ([10, 20, 30], [10, 27, 30], 7.0, 1 / 3, ""),
        ([True, False, True, True], [True, True, True, True], 1.0, 0.25, ""),
        (torch.tensor([0], dtype=torch.uint8), torch.tensor([255], dtype=torch.uint8), 255.0, 1.0, ""),
    ],
    ids=str,
)
def test_difference_is_measured(compared, legacy, new, max_abs, differing, note):
    difference = compared(legacy, new, EXACT).difference
    assert (difference.max_abs, difference.differing, difference.note) == (max_abs, pytest.approx(differing), note)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_difference_of_nothing_is_nothing(dtype):
    difference = measure(torch.empty(0, 4, dtype=dtype), torch.empty(0, 4, dtype=dtype))
    assert (difference.max_abs, difference.differing) == (0.0, 0.0)


def test_pairs_are_compared_each_with_its_own_twin(tmp_path):
    legacy = [Rec("module_out", name, [float(i)]) for i, name in enumerate("abc")]
    new = [Rec("module_out", "c", [2.0]), Rec("module_out", "a", [0.0]), Rec("module_out", "b", [1.5])]
    one, two = write_trace(tmp_path / "legacy", *legacy), write_trace(tmp_path / "new", *new)
    results = compare_all(one, two, pair(one.records, two.records, SAME_NAMES, ()).pairs, EXACT)
    assert [(r.pair.legacy.name, r.accepted) for r in results] == [("a", True), ("b", False), ("c", True)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(name="close"), "'close'"),
        (dict(name=""), "expected exact, fixed or derived"),
        (dict(name="fixed", rtol=-1e-9), "rtol -1e-09"),
        (dict(name="fixed", atol=-1.0), "atol -1.0"),
        (dict(name="fixed", rtol=NAN), "rtol nan"),
        (dict(name="fixed", atol=NAN), "atol nan"),
        (dict(name="fixed", rtol=INF), "rtol inf"),
        (dict(name="fixed", atol=INF), "atol inf"),
    ],
    ids=str,
)
def test_tolerance_that_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Tolerance(**arguments)


@pytest.mark.parametrize("option", ["--rtol", "--atol"])
@pytest.mark.parametrize("bound", ["nan", "inf", "-1"])
def test_command_line_refuses_it_as_bad_input(parity, tmp_path, option, bound):
    for side in ("legacy", "new"):
        write_trace(tmp_path / side, Rec("loss", "total", 1.0))
    folders = (tmp_path / "legacy", tmp_path / "new")
    result = parity(
        "compare", *folders, "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--tolerance", "fixed", option, bound
    )
    assert result.exit_code == 2 and not result.stdout and len(result.stderr.splitlines()) == 1


def test_labels_of_another_shape_are_no_ranking_of_the_same(tmp_path):
    boxes, scores = torch.rand(3, 4), torch.rand(3)
    sides = []
    for name, labels in (("legacy", [0, 1, 2]), ("new", [[1], [2], [0]])):
        found = (("bboxes", boxes), ("scores", scores), ("labels", labels))
        sides.append(write_trace(tmp_path / name, *(Rec("tap", "result", value, slot) for slot, value in found)))
    one, two = sides
    results = compare_all(one, two, pair(one.records, two.records, SAME_NAMES, ()).pairs, EXACT)
    assert [result.pair.new.slot for result in results if not result.accepted] == ["labels"]
