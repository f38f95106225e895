"""Equal bytes have equal fingerprints; bytes that differ at all, anywhere, have others."""

import numpy as np
import pytest

from legacy_adapters.recording.fingerprint import PARTS, Fingerprints

WORDS = 1 << 13  # of a row
SIZES = (0, 1, 4, 8 * WORDS - 1, 8 * WORDS, 8 * WORDS + 3, 8 * WORDS + 4, 3 * 8 * WORDS + 1001)


@pytest.fixture
def fingerprint():
    return fingerprint_of(Fingerprints())


def fingerprint_of(fingerprints):
    def of(array):
        data = memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1))
        return tuple(fingerprints.part(number, data) for number in PARTS)

    return of


def numbers(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_equal_bytes_at_other_addresses(fingerprint, size):
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert fingerprint(data) == fingerprint(data.copy())


@pytest.mark.parametrize("size", [size for size in SIZES if size])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_single_bit_anywhere(fingerprint, size, bit):
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    before = fingerprint(data)
    places = {0, size - 1, size // 2, *range(max(0, size - 12), size), *range(min(size, 16))}
    places |= {place for place in range(8 * WORDS - 8, 8 * WORDS + 12) if place < size}
    for place in places:
        data[place] ^= 1 << bit
        assert fingerprint(data) != before, place
        data[place] ^= 1 << bit


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_signs_only(fingerprint, first, step):
    """Signs are the top bits of words, which vanish in a sum of products modulo 2^64 half of the time."""
    plain = numbers(4 * WORDS)
    before = fingerprint(plain)
    for count in (1, 2, 3, 10, WORDS):
        other = plain.copy()
        other[first::step][:count] *= -1
        assert fingerprint(other) != before, count


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: np.roll(x, 1),
        lambda x: np.roll(x, 2),
        lambda x: x.reshape(2, -1)[::-1],  # rows change places
        lambda x: x.reshape(-1, 2)[:, ::-1],
        lambda x: -x,
        lambda x: 2 * x,
        lambda x: np.zeros_like(x),
    ],
)
def test_the_same_numbers_otherwise(fingerprint, change):
    x = numbers(8 * WORDS)
    assert fingerprint(change(x)) != fingerprint(x)


def test_zeros_of_either_sign(fingerprint):
    zeros = np.zeros(4 * WORDS, np.float32)
    assert fingerprint(zeros) != fingerprint(-zeros)


def test_key_is_drawn_anew():
    x = numbers(4 * WORDS)
    assert fingerprint_of(Fingerprints())(x) != fingerprint_of(Fingerprints())(x)
