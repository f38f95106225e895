"""A sketch must show any difference that the tensor has, and must stay the same, for golden files hold it."""

import numpy as np
import pytest
import torch

from parity.golden import sketch as sketch_module
from parity.golden.sketch import PROJECTIONS, SAMPLES, sketch
from parity.golden.sketches import marked, sums_of

from .synthetic import INF, NAN

WHOLE = 24
FINITE, CODES = slice(SAMPLES, SAMPLES + PROJECTIONS), slice(SAMPLES + PROJECTIONS, None)
MASK = 2**64 - 1


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pinned_tensor():
    """Return 1000 different numbers of zero mean that no random generator has to make again."""
    return ((torch.arange(1000) * 7919) % 1000).double() / 1000 - 0.4995


def splitmix(x):
    """Return output ``x`` of splitmix64 seeded with 0, in whole numbers of any size."""
    z = (x + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def weight(place, k):
    """Return the weight of an element in projection ``k``."""
    byte = splitmix(place) >> 8 * k & 255
    return 0.5 + byte / 128 if byte < 128 else 0.5 - byte / 128


def by_hand(values):
    """Return the sketch of a list, worked out element by element."""
    n = len(values)
    samples = [values[splitmix(i + n) % n] for i in range(SAMPLES)]
    codes = [1.0 if v != v else 2.0 if v == INF else 3.0 if v == -INF else 0.0 for v in values]
    finite = [0.0 if code else v for v, code in zip(values, codes)]
    sums = [
        sum(v * weight(i, k) for i, v in enumerate(row)) / n**0.5 for row in (finite, codes) for k in range(PROJECTIONS)
    ]
    return torch.tensor(samples + sums, dtype=torch.float64)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.5),
        torch.empty(0),
        torch.empty(0, 4),
        torch.tensor([NAN, INF, -INF, -0.0]),
        torch.arange(WHOLE).float(),
        torch.arange(WHOLE).reshape(WHOLE // 8, 8),
        torch.tensor([True, False]),
        torch.arange(6.0).reshape(2, 3).t(),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0], requires_grad=True),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_small_tensor_is_kept_whole(tensor):
    found = sketch(tensor)
    assert found.dtype == torch.float64 and not found.requires_grad
    assert torch.equal(found.nan_to_num(7.0), tensor.detach().reshape(-1).double().nan_to_num(7.0))


@pytest.mark.parametrize("shape", [(WHOLE + 1,), (7, 13), (2, 3, 50)], ids=str)
def test_larger_tensor_becomes_32_numbers_worked_out_by_hand(shape):
    tensor = noise(*shape)
    found = sketch(tensor)
    assert found.shape == (32,) and found.dtype == torch.float64
    assert torch.allclose(found, by_hand(tensor.reshape(-1).tolist()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("place", [0, 65_535, 65_536, 131_071, 131_072, 139_999])
def test_weights_of_a_long_tensor_go_on_from_block_to_block(place):
    tensor = torch.zeros(140_000)
    tensor[place] = 140_000**0.5
    weights = [weight(place, k) for k in range(PROJECTIONS)]
    assert sketch(tensor)[FINITE].tolist() == pytest.approx(weights, rel=1e-6)
    tensor[place] = INF
    assert sketch(tensor)[CODES].tolist() == pytest.approx([2.0 * w / 140_000**0.5 for w in weights], rel=1e-12)


def test_numbers_are_mixed_as_published():
    # first outputs of splitmix64 with seed 0, from the reference implementation
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]
    assert sketch_module._mixed(np.arange(5, dtype=np.uint64)).tolist() == published
    assert [splitmix(i) for i in range(5)] == published


def test_recipe_is_pinned():
    # golden files hold such numbers: another recipe needs another format version
    found = sketch(pinned_tensor())
    assert found[:4].tolist() == pytest.approx([-0.4605, -0.2805, -0.3765, 0.2845], abs=1e-12)
    assert found[FINITE].tolist() == pytest.approx(PINNED_PROJECTIONS, abs=1e-12)
    assert found[CODES].tolist() == [0.0] * 8


PINNED_PROJECTIONS = [
    0.14017969230171787, 0.6670139152210589, -0.412568407830934, -0.25304681715785565,
    0.5025979587100434, -0.05358874779862809, 0.07930535323759212, -0.6166133856415297,
]  # fmt: skip


@pytest.mark.parametrize("numel", [WHOLE + 1, 150])
def test_last_bit_of_any_element_moves_every_projection(numel):
    tensor = noise(numel)
    before = sketch(tensor)
    for i in range(numel):
        changed = tensor.clone()
        changed[i] = torch.nextafter(changed[i], torch.tensor(INF))
        after = sketch(changed)
        assert (after[FINITE] != before[FINITE]).all() and torch.equal(after[CODES], before[CODES])


@pytest.mark.parametrize("place", [0, 777, 16_384, 19_999])
def test_one_element_of_many_moves_every_projection_by_its_share(place):
    tensor = noise(20_000)
    changed = tensor.clone()
    changed[place] += 1.0
    moved = (sketch(changed) - sketch(tensor))[FINITE]
    shares = [weight(place, k) * 20_000**-0.5 for k in range(PROJECTIONS)]
    assert moved.tolist() == pytest.approx(shares, rel=1e-4)


def permuted_rows(x):
    return x[torch.arange(len(x)).roll(1)]


def last_rows_swapped(x):
    return torch.cat([x[:-2], x[-1:], x[-2:-1]])


def two_swapped(x):
    x = x.clone().reshape(-1)
    x[[1000, 3000]] = x[[3000, 1000]]
    return x


def other_tail_of_equal_mean_and_std(x):
    flat = x.clone().reshape(-1)
    flat[-100:] = flat[-100:].flip(0)
    return flat


def mirrored_tail(x):
    flat = x.clone().reshape(-1)
    tail = flat[-100:]
    flat[-100:] = 2 * tail.mean() - tail
    return flat


@pytest.mark.parametrize(
    "change",
    [
        permuted_rows,
        last_rows_swapped,
        two_swapped,
        other_tail_of_equal_mean_and_std,
        mirrored_tail,
        lambda x: x.t(),
        lambda x: x.flip(1),
    ],
    ids=["rows permuted", "last rows swapped", "two elements swapped", "tail reversed", "tail mirrored", "transposed",
         "columns reversed"],
)  # fmt: skip
def test_what_summary_statistics_would_hide_is_seen(change):
    tensor = noise(64, 64)
    changed = change(tensor).reshape(64, 64)
    statistics = [tensor.double().mean(), tensor.double().std()]
    assert torch.allclose(torch.stack([changed.double().mean(), changed.double().std()]), torch.stack(statistics))
    moved = (sketch(changed) - sketch(tensor))[FINITE].abs()
    assert moved.max() > 0.01  # of elements of unit size; float32 noise moves it by 1e-7


def test_every_swap_and_every_move_from_one_element_to_another_is_seen():
    tensor = noise(1000)
    before = sketch(tensor)
    for i in range(999):
        swapped, moved = tensor.clone(), tensor.clone()
        swapped[[i, i + 1]] = tensor[[i + 1, i]]
        moved[i], moved[(i * 7 + 1) % 1000] = tensor[i] + 1.0, tensor[(i * 7 + 1) % 1000] - 1.0
        for other in (swapped, moved):
            gap = (other - tensor).abs().max()
            assert (sketch(other) - before).abs().max() > 1e-4 * gap, i


def test_weights_of_no_two_elements_are_alike():
    rows = sketch_module._weights(0).t()
    assert len(torch.unique(rows, dim=0)) == len(rows)
    assert 0.5 <= rows.abs().min() and rows.abs().max() < 1.5 and abs(rows.mean()) < 0.01


def test_shape_does_not_matter_but_order_in_memory_does_not_either():
    tensor = noise(30, 40)
    assert torch.equal(sketch(tensor), sketch(tensor.reshape(-1)))
    assert torch.equal(sketch(tensor.t()), sketch(tensor.t().contiguous()))
    assert not torch.equal(sketch(tensor.t()), sketch(tensor))


@pytest.mark.parametrize(("value", "code"), [(NAN, 1.0), (INF, 2.0), (-INF, 3.0)], ids=str)
def test_what_is_not_finite_has_a_code_and_counts_as_zero(value, code):
    tensor, zeroed, numel = noise(400), noise(400), 400
    place = 123
    tensor[place], zeroed[place] = value, 0.0
    found = sketch(tensor)
    assert found[SAMPLES:].isfinite().all()
    assert torch.equal(found[FINITE], sketch(zeroed)[FINITE])
    assert found[CODES].tolist() == pytest.approx([code * weight(place, k) * numel**-0.5 for k in range(PROJECTIONS)])


@pytest.mark.parametrize("value", [0.0, NAN, INF], ids=str)
def test_constant_tensor_is_like_any_other(value):
    tensor = torch.full((400,), value)
    assert torch.allclose(sketch(tensor), by_hand(tensor.tolist()), atol=1e-14, equal_nan=True)


def test_moved_nan_is_seen():
    one, two = noise(400), noise(400)
    one[10], two[11] = NAN, NAN
    assert not torch.equal(sketch(one)[CODES], sketch(two)[CODES])


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(100), torch.arange(100, dtype=torch.uint8), torch.arange(100) % 3 == 0, torch.arange(100).half()],
    ids=lambda t: str(t.dtype),
)
def test_whole_numbers_booleans_and_halves_are_sketched_as_float64(tensor):
    assert torch.equal(sketch(tensor), sketch(tensor.double()))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_error_of_a_sketch_has_the_size_of_the_error_of_the_tensor(scale, seed):
    tensor, error = noise(20_000).double(), noise(20_000, seed=seed + 1).double() * scale
    found = sketch(tensor + error) - sketch(tensor)
    assert 0.5 * scale < found.square().mean().sqrt() < 1.5 * scale
    assert found.abs().max() < 6 * scale


def test_same_under_one_and_two_threads():
    tensor = noise(100_000)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(sketch(tensor))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][:SAMPLES], found[1][:SAMPLES])
    assert (found[0] - found[1]).abs().max() <= 4e-15 * found[0].abs().max()


def test_twice_the_same_and_the_tensor_is_left_alone():
    tensor = noise(500)
    copy = tensor.clone()
    sketch_module._weights.cache_clear()
    first = sketch(tensor)
    assert torch.equal(first, sketch(tensor)) and torch.equal(tensor, copy)


@pytest.mark.parametrize(("shape", "places"), [
    ((2, 12), None),
    # 25 elements of 30 are at the places, 5 elsewhere
    ((6, 5), torch.arange(6) < 5),
])  # fmt: skip
def test_what_is_kept_whole_has_no_sums(shape, places):
    assert sums_of(shape, places) is None
    which, weights = sums_of((6, 5), None)
    assert which.tolist() == [*range(SAMPLES, SAMPLES + PROJECTIONS)] and weights.shape == (PROJECTIONS, 6, 5)


def test_sums_over_what_is_not_finite_are_marked_where_they_differ_in_sketches_of_one_length():
    one, two = (sketch(torch.arange(30.0).index_fill(0, torch.tensor([place]), NAN)) for place in (3, 4))
    assert marked(one, two)[CODES].isnan().all() and torch.equal(marked(one, one), one)
    assert torch.equal(marked(sketch(torch.arange(20.0)), two), torch.arange(20.0).double())
