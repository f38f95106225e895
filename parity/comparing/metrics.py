"""Measure how two tensors differ, piece by piece, so that memory does not grow with their size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..traces.pieces import PIECE, Numbers, array, together

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_ROW = (
    1 << 13
)  # elements of a product; for more than 10,000 numpy's BLAS starts threads, which cost more than they bring
_SAFE_SQUARES = (1e-250, 1e250)
_TAME = (1e-25, 1e36)  # squares in float32
_LEAST_EXPONENT = -1000  # its negative is still the exponent of a float64


@dataclass(frozen=True)
class Metrics:
    """How the elements of two tensors of one dtype and shape differ; pairs are (legacy, new).

    Attributes:
        elements: compared.
        max_abs: largest absolute difference over the elements finite on both sides; 0 if there are none.
        max_rel: largest difference relative to the legacy value, over those whose legacy value is not zero.
        mean_abs: mean absolute difference over the elements finite on both sides.
        cosine: similarity of the two tensors as vectors of those elements, in [-1, 1]; NaN if one of them is zero.
        ulps: largest number of steps from one value to the other through all values of the dtype, +0 and -0 being
            one; None for a sketch, whose values are not in the record's dtype.
        differing: share of elements with other values, in [0, 1].
        nan: how many elements are NaN.
        inf: how many are infinite.
        nan_moved: elements that are NaN on one side only.
        inf_moved: elements infinite on one side and another number on the other.
        same_bits: no bit differs.
    """

    elements: int
    max_abs: float
    max_rel: float
    mean_abs: float
    cosine: float
    ulps: int | None
    differing: float
    nan: tuple[int, int]
    inf: tuple[int, int]
    nan_moved: int
    inf_moved: int
    same_bits: bool

    @property
    def note(self) -> str:
        """What the numbers cannot say: NaN or Inf in other places, or that only signs of zero differ; else empty."""
        moved = ((self.nan_moved, "NaN on one side only"), (self.inf_moved, "Inf against another value"))
        notes = [f"{count} {what}" for count, what in moved if count]
        if not notes and not self.differing and not self.same_bits:
            notes = ["signs of zero or payloads of NaN differ"]
        return ", ".join(notes)


def measure(legacy: Numbers, new: Numbers) -> Metrics:
    """Measure two tensors of one dtype and shape."""
    return measure_pieces(together(legacy, new), legacy.dtype)


def measure_pieces(pairs: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Metrics:
    """Measure two tensors of ``dtype`` that come in flat pieces, legacy and new, of at most ``PIECE`` elements."""
    if dtype == torch.float32:
        meter = _SingleMeter()
    else:
        meter = _FloatMeter(dtype) if dtype.is_floating_point else _WholeMeter()
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is said in the metrics
        for legacy, new in pairs:
            meter.add(legacy, new)
    return meter.result()


class _Meter:
    """What floats and whole numbers have in common: sums and maxima in float64, over buffers that are used again."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._one, self._two, self._gap, self._ratio = (np.empty(PIECE) for _ in range(4))
        self._cosine = _Cosine(scaled=dtype == torch.float64)
        self._elements = self._differing = self._measured = 0
        self._max_abs = self._max_rel = self._mean_abs = 0.0
        self._ulps = 0
        self._nan, self._inf = [0, 0], [0, 0]
        self._nan_moved = self._inf_moved = 0
        self._same_bits = True

    def _subtract(self, legacy: Tensor, new: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return both pieces and their absolute difference in float64."""
        one, two, gap = (buffer[: len(legacy)] for buffer in (self._one, self._two, self._gap))
        np.copyto(one, array(legacy))
        np.copyto(two, array(new))
        np.subtract(two, one, out=gap)
        return one, two, np.abs(gap, out=gap)

    def _add(self, one: np.ndarray, two: np.ndarray, gap: np.ndarray, total: float, measured: int) -> None:
        """Take in what :meth:`_subtract` returned, zero where not finite; ``total`` is the sum of ``gap``."""
        # a sum may overflow where the mean does not
        mean = total / measured if math.isfinite(total) else float((gap / measured).sum())
        ratio = _ratios(one, gap, self._ratio)
        largest = float(ratio.max())
        if math.isinf(largest):
            ratio[one == 0] = 0
            largest = float(ratio.max())
        self._take(measured, float(gap.max()), mean, largest)
        self._cosine.add(one, two)

    def _take(self, measured: int, max_abs: float, mean_abs: float, max_rel: float) -> None:
        self._measured += measured
        self._max_abs = max(self._max_abs, max_abs)
        self._mean_abs += (mean_abs - self._mean_abs) * (measured / self._measured)
        self._max_rel = max(self._max_rel, max_rel)

    def result(self) -> Metrics:
        """Return the metrics of all pieces added so far."""
        return Metrics(
            elements=self._elements,
            max_abs=self._max_abs,
            max_rel=self._max_rel,
            mean_abs=self._mean_abs if math.isfinite(self._max_abs) else math.inf,
            cosine=self._cosine.value(),
            ulps=self._ulps,
            differing=self._differing / max(1, self._elements),
            nan=(self._nan[0], self._nan[1]),
            inf=(self._inf[0], self._inf[1]),
            nan_moved=self._nan_moved,
            inf_moved=self._inf_moved,
            same_bits=self._same_bits,
        )


class _FloatMeter(_Meter):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._bits = _BITS[dtype.itemsize]
        self._steps = torch.empty(PIECE, dtype=self._bits).numpy()
        self._unequal = np.empty(PIECE, dtype=bool)

    def add(self, legacy: Tensor, new: Tensor) -> None:
        bits = legacy.view(self._bits).numpy(), new.view(self._bits).numpy()
        one, two, gap = self._subtract(legacy, new)
        self._elements += len(gap)
        measured, total = len(gap), float(gap.sum())
        if not math.isfinite(total):  # spares a look at every element
            aside = self._set_aside(one, two, bits)
            measured -= int(np.count_nonzero(aside))
            for values in (one, two, gap):
                values[aside] = 0.0
            bits = np.where(aside, 0, bits[0]), np.where(aside, 0, bits[1])
            total = float(gap.sum())
        if measured:
            self._add_steps(gap, *bits)
            self._add(one, two, gap, total, measured)

    def _set_aside(self, one: np.ndarray, two: np.ndarray, bits: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Count NaN and Inf and return where they are on either side."""
        nan, inf = (np.isnan(one), np.isnan(two)), (np.isinf(one), np.isinf(two))
        for side in (0, 1):
            self._nan[side] += int(np.count_nonzero(nan[side]))
            self._inf[side] += int(np.count_nonzero(inf[side]))
        any_nan, any_inf = nan[0] | nan[1], inf[0] | inf[1]
        nan_moved = int(np.count_nonzero(nan[0] != nan[1]))
        inf_moved = int(np.count_nonzero(any_inf & (one != two) & ~any_nan))
        self._nan_moved += nan_moved
        self._inf_moved += inf_moved
        self._differing += nan_moved + inf_moved
        aside = any_nan | any_inf
        self._same_bits &= np.array_equal(bits[0][aside], bits[1][aside])
        return aside

    def _add_steps(self, gap: np.ndarray, one: np.ndarray, two: np.ndarray) -> None:
        unequal = np.not_equal(gap, 0.0, out=self._unequal[: len(gap)])
        differing = int(np.count_nonzero(unequal))
        self._differing += differing
        if not differing:
            self._same_bits &= np.array_equal(one, two)
            return
        self._same_bits = False
        steps = self._steps[: len(gap)]
        if np.bitwise_xor(one, two, out=steps).min() >= 0:  # no element changes its sign
            largest = int(np.abs(np.subtract(one, two, out=steps), out=steps).max())
        else:
            largest = _largest_distance(_ordered(one), _ordered(two))
        self._ulps = max(self._ulps, largest)


class _SingleMeter(_FloatMeter):
    """For float32, the dtype of most records: long pieces of tame numbers in float32, which is twice as fast.

    Figures are good to 1e-6 of themselves then, the cosine to 1e-6 of its distance from 1.
    """

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self._single_gap, self._single_ratio = (np.empty(PIECE, np.float32) for _ in range(2))

    def add(self, legacy: Tensor, new: Tensor) -> None:
        if len(legacy) < PIECE or not self._add_tame(legacy.numpy(), new.numpy()):
            super().add(legacy, new)

    def _add_tame(self, one: np.ndarray, two: np.ndarray) -> bool:
        """Take a piece if all that is computed of it in float32 is finite and sound; tell whether it was."""
        gap = np.subtract(two, one, out=self._single_gap)
        square, product, rest = _dot(one, one), _dot(one, gap), _dot(gap, gap)
        other = square + 2 * product + rest  # exactly the first where nothing differs
        total = float(np.abs(gap, out=gap).sum())
        largest = float(_ratios(one, gap, self._single_ratio).max())
        if not (math.isfinite(total + largest) and _TAME[0] < square < _TAME[1] and 0.01 * square < other < _TAME[1]):
            return False
        self._elements += len(gap)
        self._add_steps(gap, one.view(np.int32), two.view(np.int32))
        self._take(len(gap), float(gap.max()), total / len(gap), largest)
        self._cosine.take(_Products((0, 0), (square, other), square + product))
        return True


class _WholeMeter(_Meter):
    def __init__(self) -> None:
        super().__init__(torch.int64)

    def add(self, legacy: Tensor, new: Tensor) -> None:
        whole = legacy.long().numpy(), new.long().numpy()
        one, two, gap = self._subtract(legacy, new)
        differing = int(np.count_nonzero(whole[0] != whole[1]))
        self._elements += len(gap)
        self._differing += differing
        self._same_bits &= not differing
        self._ulps = max(self._ulps, _largest_distance(*whole))
        self._add(one, two, gap, float(gap.sum()), len(gap))
        self._max_abs = float(self._ulps)  # float64 does not tell neighbours beyond 2^53 apart


def _ratios(legacy: np.ndarray, gap: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """Return ``gap`` relative to ``legacy``; infinite, but for no gap, where that is zero."""
    ratio = np.abs(legacy, out=buffer[: len(legacy)])
    ratio += np.finfo(ratio.dtype).smallest_subnormal  # so that no gap is not divided by zero; alters nothing else
    return np.divide(gap, ratio, out=ratio)


def _ordered(bits: np.ndarray) -> np.ndarray:
    """Turn the bits of floats into whole numbers whose order and distances are those of the floats; -0 becomes 0."""
    info = np.iinfo(bits.dtype)
    negative = bits >> (info.bits - 1)  # -1 or 0
    ordered = bits & info.max
    ordered ^= negative
    ordered -= negative
    return ordered


def _largest_distance(one: np.ndarray, two: np.ndarray) -> int:
    """Return the largest distance of whole numbers of one dtype, which that dtype need not be able to hold."""
    unsigned = np.dtype(f"u{one.dtype.name}")
    return int((np.maximum(one, two).view(unsigned) - np.minimum(one, two).view(unsigned)).max())


@dataclass(frozen=True)
class _Products:
    """Sums over one piece of two vectors, each scaled by two to the power of minus its exponent."""

    exponents: tuple[int, int]
    squares: tuple[float, float]
    product: float


class _Cosine:
    """Sum up the products of two vectors that come in pieces; with ``scaled`` at any size of the elements."""

    def __init__(self, scaled: bool) -> None:
        self._scaled = scaled
        self._parts: list[_Products] = []

    def add(self, one: np.ndarray, two: np.ndarray) -> None:
        """Take a piece of each vector; overwrites them if squares would overflow or vanish."""
        part = _products(one, two, (0, 0))
        if self._scaled and not all(_SAFE_SQUARES[0] < square < _SAFE_SQUARES[1] for square in part.squares):
            exponents = _exponent(one), _exponent(two)
            for values, exponent in zip((one, two), exponents):
                values *= math.ldexp(1.0, -exponent)
            part = _products(one, two, exponents)
        self.take(part)

    def take(self, part: _Products) -> None:
        """Take a piece's products."""
        self._parts.append(part)

    def value(self) -> float:
        """Return the cosine; NaN if a vector is zero or empty."""
        most = [max((part.exponents[side] for part in self._parts), default=0) for side in (0, 1)]
        squares = [
            math.fsum(math.ldexp(part.squares[side], 2 * (part.exponents[side] - most[side])) for part in self._parts)
            for side in (0, 1)
        ]
        product = math.fsum(math.ldexp(part.product, sum(part.exponents) - sum(most)) for part in self._parts)
        norm = math.sqrt(squares[0]) * math.sqrt(squares[1])
        return max(-1.0, min(1.0, product / norm)) if norm else math.nan


def _products(one: np.ndarray, two: np.ndarray, exponents: tuple[int, int]) -> _Products:
    return _Products(exponents, (_dot(one, one), _dot(two, two)), _dot(one, two))


def _dot(one: np.ndarray, two: np.ndarray) -> float:
    whole = len(one) // _ROW * _ROW
    rows = one[:whole].reshape(-1, 1, _ROW) @ two[:whole].reshape(-1, _ROW, 1)
    return float(rows.sum() + one[whole:] @ two[whole:])


def _exponent(values: np.ndarray) -> int:
    """Return the binary exponent of the largest absolute value."""
    largest = float(np.abs(values).max())
    return max(_LEAST_EXPONENT, math.frexp(largest)[1]) if largest else _LEAST_EXPONENT
