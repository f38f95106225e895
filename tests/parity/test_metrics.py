"""What is measured of two tensors: by hand, and against a slow reference that knows no pieces and no tricks."""

import math
import struct
import warnings
from fractions import Fraction

import pytest
import torch

from parity.comparing.metrics import measure, measure_pieces
from parity.traces.pieces import PIECE

from .synthetic import INF, NAN

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
F32_TINY = 2.0**-149
F64_TINY = 5e-324


@pytest.fixture(autouse=True)
def no_warnings():
    """A number that is not one is said in the metrics, not on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def of(legacy, new, dtype=torch.float32):
    return measure(torch.tensor(legacy, dtype=dtype), torch.tensor(new, dtype=dtype))


def test_figures_of_a_small_tensor():
    found = of([1.0, -2.0, 0.0, 4.0], [1.0, -3.0, 0.5, 4.25])
    assert (found.elements, found.differing) == (4, 0.75)
    assert (found.max_abs, found.mean_abs) == (1.0, 1.75 / 4)
    assert found.max_rel == 0.5  # of -2 to -3; from zero to 0.5 there is no relative difference
    assert found.cosine == pytest.approx((1 + 6 + 17) / math.sqrt((1 + 4 + 16) * (1 + 9 + 0.25 + 4.25**2)), rel=1e-15)
    assert found.ulps == 0x3F000000  # from 0 to 0.5
    assert (found.nan, found.inf, found.nan_moved, found.inf_moved) == ((0, 0), (0, 0), 0, 0)
    assert not found.same_bits and found.note == ""


@pytest.mark.parametrize(
    ("dtype", "legacy", "new", "ulps"),
    [
        (torch.float32, 1.0, 1.0 + 2.0**-23, 1),
        (torch.float32, 1.0, 1.0 - 2.0**-24, 1),
        (torch.float32, 1.0, 2.0, 1 << 23),
        (torch.float32, -1.0, -2.0, 1 << 23),
        (torch.float32, 0.0, F32_TINY, 1),
        (torch.float32, -0.0, F32_TINY, 1),
        (torch.float32, F32_TINY, -F32_TINY, 2),
        (torch.float32, 0.0, -F32_TINY, 1),
        (torch.float32, 3.4028234663852886e38, -3.4028234663852886e38, 2 * 0x7F7FFFFF),
        (torch.float64, 1.0, 1.0 + 2.0**-52, 1),
        (torch.float64, F64_TINY, -F64_TINY, 2),
        (torch.float64, 1.7976931348623157e308, -1.7976931348623157e308, 2 * 0x7FEFFFFFFFFFFFFF),
        (torch.float16, 1.0, 1.0 + 2.0**-10, 1),
        (torch.float16, 65504.0, -65504.0, 2 * 0x7BFF),
        (torch.bfloat16, 1.0, 1.0 + 2.0**-7, 1),
        (torch.bfloat16, 1.0, -1.0, 2 * 0x3F80),
        (torch.int64, 2**60, 2**60 + 1, 1),
        (torch.int64, -(2**63), 2**63 - 1, 2**64 - 1),
        (torch.int32, -(2**31), 2**31 - 1, 2**32 - 1),
        (torch.int8, -128, 127, 255),
        (torch.uint8, 0, 255, 255),
        (torch.bool, False, True, 1),
    ],
    ids=str,
)
def test_ulps_are_steps_through_the_values_of_the_dtype(dtype, legacy, new, ulps):
    # among equal elements, of which some have the other sign, so that neither way of counting is passed by
    others = [0, 1, 1] if dtype in WHOLE else [0.0, 1.0, -1.0]
    assert of([*others, legacy], [*others, new], dtype).ulps == ulps
    assert of([new], [legacy], dtype).ulps == ulps


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_zeros_of_either_sign_are_equal_values_of_other_bits(dtype):
    found = of([0.0, 1.0], [-0.0, 1.0], dtype)
    assert (found.ulps, found.differing, found.max_abs, found.same_bits) == (0, 0.0, 0.0, False)
    assert found.note == "signs of zero or payloads of NaN differ"
    assert of([0.0, -0.0, NAN], [0.0, -0.0, NAN], dtype).same_bits


def test_payload_of_nan_is_a_bit():
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    found = measure(torch.tensor([NAN]), other)
    assert not found.same_bits and found.differing == 0.0 and found.nan == (1, 1) and found.nan_moved == 0


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_inf_are_counted_on_each_side_and_left_out_of_the_figures(dtype):
    found = of([NAN, NAN, 1.0, INF, INF, -INF, 2.0, 0.0], [NAN, 1.0, NAN, INF, -INF, 3.0, 2.5, INF], dtype)
    assert (found.nan, found.inf) == ((2, 2), (3, 3))
    assert (found.nan_moved, found.inf_moved) == (2, 3)
    assert (found.max_abs, found.mean_abs, found.max_rel, found.cosine) == (0.5, 0.5, 0.25, 1.0)
    assert found.differing == 6 / 8
    assert found.note == "2 NaN on one side only, 3 Inf against another value"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nothing_finite_leaves_nothing_to_measure(dtype):
    found = of([NAN, INF], [NAN, -INF], dtype)
    assert (found.max_abs, found.mean_abs, found.max_rel, found.ulps) == (0.0, 0.0, 0.0, 0)
    assert math.isnan(found.cosine) and found.differing == 0.5


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
@pytest.mark.parametrize("shape", [(0,), (0, 4), ()], ids=str)
def test_empty_and_zero_dimensional_tensors(dtype, shape):
    found = measure(torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype))
    count = math.prod(shape)
    assert (found.elements, found.differing, found.max_abs) == (count, float(count), float(count))
    assert math.isnan(found.cosine)  # of nothing, or of zero


def test_tensors_of_other_shapes_are_not_measured_in_part():
    with pytest.raises(ValueError, match="element by element"):
        measure(torch.zeros(3), torch.zeros(4))


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1.0, 1e160, 1e300])
@pytest.mark.parametrize("other", [1e-300, 1.0, 1e300])
def test_cosine_at_any_size_of_the_elements(scale, other):
    one = torch.tensor([3.0, 4.0], dtype=torch.float64) * scale
    two = torch.tensor([4.0, 3.0], dtype=torch.float64) * other
    assert measure(one, two).cosine == pytest.approx(24 / 25, rel=2e-4 if scale < 1e-307 else 1e-14)


def test_cosine_of_pieces_of_very_different_sizes():
    """A piece that is all zero or tiny neither hides a large one nor is overwhelmed where it is all there is."""
    zero, tiny = torch.zeros(PIECE, dtype=torch.float64), torch.full((PIECE,), 1e-300, dtype=torch.float64)
    large = torch.full((PIECE,), 1e300, dtype=torch.float64)
    for parts, cosine in (((zero, tiny), -1.0), ((tiny, large), -1.0), ((large, zero, tiny), -1.0), ((zero,), NAN)):
        one = torch.cat(parts)
        assert measure(one, -one).cosine == pytest.approx(cosine, rel=1e-14, nan_ok=True)
    assert measure(torch.cat([tiny, large]), torch.cat([tiny, -large])).cosine == pytest.approx(-1.0, rel=1e-14)


def test_mean_of_what_has_no_sum():
    one = torch.full((4 * PIECE,), 1e305, dtype=torch.float64)
    assert measure(one, -one).mean_abs == pytest.approx(2e305, rel=1e-14)
    assert measure(one * 1000, -one * 1000).mean_abs == INF  # nor has a difference of 2e308


def test_difference_beyond_the_precision_of_float64():
    found = of([2**60], [2**60 + 1], torch.int64)
    assert (found.max_abs, found.ulps, found.differing) == (1.0, 1, 1.0)


def samples(dtype, count, generator):
    """Return tensors with all that may go wrong: close ones, far ones, zeros of both signs, denormals, NaN, Inf."""
    if dtype in WHOLE:
        info = torch.iinfo(dtype) if dtype != torch.bool else None
        low, high = (0, 2) if info is None else (max(info.min, -(2**62)), min(info.max, 2**62))
        one = torch.randint(low, high, (count,), generator=generator).to(dtype)
        two = torch.randint(low, high, (count,), generator=generator).to(dtype)
        return one, torch.where(torch.rand(count, generator=generator) < 0.5, one, two)
    one = torch.randn(count, generator=generator, dtype=torch.float64)
    near = one * (1 + torch.randn(count, generator=generator, dtype=torch.float64) * torch.finfo(dtype).eps)
    far = torch.randn(count, generator=generator, dtype=torch.float64)
    special = torch.tensor([0.0, -0.0, NAN, INF, -INF, torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal / 4])
    sides = []
    for values in (one, torch.where(torch.rand(count, generator=generator) < 0.8, near, far)):
        odd = special[torch.randint(len(special), (count,), generator=generator)].double()
        sides.append(torch.where(torch.rand(count, generator=generator) < 0.1, odd, values).to(dtype))
    return sides[0], sides[1]


def position(value, dtype):
    """Return the number of steps from zero to ``value``, counted on its encoding."""
    if dtype in WHOLE:
        return int(value)
    layouts = {torch.float64: ("<d", "<q"), torch.float32: ("<f", "<i"), torch.float16: ("<e", "<h")}
    if dtype == torch.bfloat16:
        magnitude = struct.unpack("<i", struct.pack("<f", abs(value)))[0] >> 16
    else:
        code, whole = layouts[dtype]
        magnitude = struct.unpack(whole, struct.pack(code, abs(value)))[0]
    return -magnitude if value < 0 else magnitude


def slow(legacy, new):
    """Measure element by element in exact arithmetic."""
    dtype, pairs = legacy.dtype, list(zip(legacy.tolist(), new.tolist()))
    finite = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    gaps = [abs(Fraction(a) - Fraction(b)) for a, b in finite]
    squares = [sum(Fraction(pair[side]) ** 2 for pair in finite) for side in (0, 1)]
    product = sum(Fraction(a) * Fraction(b) for a, b in finite)
    return dict(
        elements=len(pairs),
        max_abs=float(max(gaps, default=0)),
        max_rel=float(max((gap / abs(Fraction(a)) for gap, (a, _) in zip(gaps, finite) if a), default=0)),
        mean_abs=float(sum(gaps) / len(gaps)) if gaps else 0.0,
        cosine=math.copysign(math.sqrt(product**2 / (squares[0] * squares[1])), product) if all(squares) else NAN,
        ulps=max((abs(position(a, dtype) - position(b, dtype)) for a, b in finite), default=0),
        differing=sum(a != b and not (a != a and b != b) for a, b in pairs) / max(1, len(pairs)),
        nan=tuple(sum(pair[side] != pair[side] for pair in pairs) for side in (0, 1)),
        inf=tuple(sum(math.isinf(pair[side]) for pair in pairs) for side in (0, 1)),
        nan_moved=sum((a != a) != (b != b) for a, b in pairs),
        inf_moved=sum((math.isinf(a) or math.isinf(b)) and a != b and a == a and b == b for a, b in pairs),
    )


@pytest.mark.parametrize("count", [1, 2, 1000])
@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
def test_figures_are_those_of_exact_arithmetic(dtype, count):
    generator = torch.Generator().manual_seed(count)
    for _ in range(3):
        legacy, new = samples(dtype, count, generator)
        found = measure(legacy, new)
        for name, value in slow(legacy, new).items():
            got = getattr(found, name)
            if isinstance(value, float):
                # a product that nearly cancels has the error of its terms
                assert got == pytest.approx(value, rel=1e-12, abs=1e-13 if name == "cosine" else 0, nan_ok=True), name
            else:
                assert got == value, name
        assert found.same_bits == bool(legacy.view(torch.uint8).equal(new.view(torch.uint8)))


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
def test_figures_do_not_depend_on_the_pieces(dtype):
    generator = torch.Generator().manual_seed(1)
    legacy, new = samples(dtype, 2 * PIECE + 17, generator)
    whole = measure(legacy, new)
    for sizes in ([1, PIECE, 5, PIECE - 1, 12], [17] + [PIECE // 4] * 8):
        pieces = zip(legacy.split(sizes), new.split(sizes))
        found = measure_pieces(pieces, dtype)
        for name in ("mean_abs", "cosine"):
            assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-12)
        for name in ("max_abs", "max_rel", "ulps", "differing", "nan", "inf", "nan_moved", "inf_moved", "same_bits"):
            assert getattr(found, name) == getattr(whole, name), name


def test_a_single_element_of_many_is_found_wherever_it_stands():
    legacy = torch.linspace(1.0, 2.0, 3 * PIECE)
    for place in (0, PIECE - 1, PIECE, 3 * PIECE - 1):
        new = legacy.clone()
        new[place] = torch.nextafter(new[place], torch.tensor(INF))
        found = measure(legacy, new)
        assert (found.ulps, found.differing) == (1, 1 / (3 * PIECE)) and found.max_abs > 0


def test_nothing_of_what_is_measured_is_changed():
    legacy, new = torch.tensor([1.0, NAN, 2.0]), torch.tensor([INF, 1.0, 3.0])
    copies = legacy.clone(), new.clone()
    measure(legacy, new)
    assert torch.equal(legacy.view(torch.int32), copies[0].view(torch.int32)) and torch.equal(new, copies[1])
    wide = torch.tensor([1e300, 2.0], dtype=torch.float64)
    measure(wide, wide * 2)
    assert wide.tolist() == [1e300, 2.0]


def noisy(scale, error, zeros=0.0):
    draw = torch.Generator().manual_seed(0)
    legacy = torch.randn(3 * PIECE + 5, generator=draw) * scale
    legacy[torch.rand(len(legacy), generator=draw) < zeros] = 0.0
    return legacy, legacy * (1 + error * torch.randn(len(legacy), generator=draw))


@pytest.mark.parametrize(
    ("legacy", "new"),
    [
        noisy(1.0, 1e-7), noisy(1.0, 1e-3), noisy(1.0, 0.3, zeros=0.5), noisy(1e-8, 1e-6), noisy(1e15, 1e-6),
        noisy(1e-20, 1e-6), noisy(1e25, 1e-6), noisy(1e-44, 1.0), noisy(1e37, 0.5),
        (noisy(1.0, 0.0)[0], torch.zeros(3 * PIECE + 5)), (torch.zeros(3 * PIECE + 5), noisy(1.0, 0.0)[0]),
        (noisy(1.0, 0.0)[0], -noisy(1.0, 0.0)[0]),
    ],
    ids=["last places", "small", "large", "tiny", "huge", "tiny squares", "huge squares", "denormal", "overflow",
         "lost", "made", "negative"],
)  # fmt: skip
def test_long_float32_tensors_are_measured_as_in_float64(legacy, new):
    found, wide = measure(legacy, new), measure(legacy.double(), new.double())
    assert (found.elements, found.differing, found.nan, found.inf) == (
        wide.elements,
        wide.differing,
        wide.nan,
        wide.inf,
    )
    for name in ("max_abs", "max_rel", "mean_abs", "cosine"):
        assert getattr(found, name) == pytest.approx(getattr(wide, name), rel=3e-6, nan_ok=True), name
    if not math.isnan(wide.cosine):
        assert 1 - found.cosine == pytest.approx(1 - wide.cosine, rel=1e-3, abs=1e-14)
    assert found.ulps == int((ordered(legacy) - ordered(new)).abs().max())


def ordered(values):
    bits = values.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
