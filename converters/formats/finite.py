"""Count the numbers that are not finite, while tensors are read piece by piece.

Pieces are searched without numpy: in all floating dtypes the highest byte of a number tells that it might be NaN or
infinite. Only a piece with such a byte is looked at more closely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.formats.stored import StoredTensor

if TYPE_CHECKING:
    from numpy import ndarray as Array

_IEEE = {  # bytes of a number, bits of its fraction
    "float64": (8, 52),
    "complex128": (8, 52),
    "float32": (4, 23),
    "complex64": (4, 23),
    "float16": (2, 10),
    "complex32": (2, 10),
    "bfloat16": (2, 7),
    "float8_e5m2": (1, 2),
}
_NAN_ONLY = {  # the bytes that mean NaN, in dtypes without infinity
    "float8_e4m3fn": (0x7F, 0xFF),
    "float8_e4m3fnuz": (0x80,),
    "float8_e5m2fnuz": (0x80,),
    "float8_e8m0fnu": (0xFF,),
}

_SHOWN = 3  # tensors that are named


@dataclass(frozen=True)
class NotFinite:
    """How many elements of a tensor are NaN, and how many infinite."""

    nan: int
    infinite: int

    def __str__(self) -> str:
        counts = [f"{self.nan} NaN"] if self.nan else []
        return ", ".join([*counts, *([f"{self.infinite} infinite"] if self.infinite else [])])


def count(tensor: StoredTensor, also: Callable[[bytes | memoryview], object] | None = None) -> NotFinite | None:
    """Count the elements of a tensor that are not finite; None if there are none.

    Args:
        tensor: It is read once; of a complex one each part counts.
        also: Is given every piece that is read, as `hashlib`'s `update`.

    Raises:
        CheckpointError, OSError: As `StoredTensor.data` does.
    """
    find = _finder(tensor.dtype)
    nan = infinite = 0
    for piece in tensor.chunks():
        if also is not None:
            also(piece)
        if find is not None:
            more = find(piece if isinstance(piece, bytes) else bytes(piece))
            nan, infinite = nan + more[0], infinite + more[1]
    return NotFinite(nan, infinite) if nan or infinite else None


def listed_counts(counts: Mapping[str, NotFinite]) -> str:
    """Say which tensors hold numbers that are not finite, and how many."""
    named = [f"`{key}` ({counted})" for key, counted in counts.items()]
    total = sum(counted.nan + counted.infinite for counted in counts.values())
    numbers = "1 number that is" if total == 1 else f"{total} numbers that are"
    shown, more = ", ".join(named[:_SHOWN]), f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"{len(named)} {'tensor holds' if len(named) == 1 else 'tensors hold'} {numbers} not finite: {shown}{more}"


def _finder(dtype: str) -> Callable[[bytes], tuple[int, int]] | None:
    """Return what counts NaN and infinite numbers in a piece of a dtype; None of a dtype that has none."""
    if dtype in _NAN_ONLY:
        return lambda piece: (sum(map(piece.count, _NAN_ONLY[dtype])), 0)
    if dtype not in _IEEE:
        return None
    size, fraction = _IEEE[dtype]
    # the bits of an exponent that is all ones, as far as they are in the highest byte, whatever the sign
    ones = (((1 << (8 * size - 1)) - (1 << fraction)) >> (8 * (size - 1))) & 0x7F
    high = [byte for byte in range(256) if byte & ones == ones]
    return lambda piece: _exact(piece, size, fraction) if _any_of(piece[size - 1 :: size], high) else (0, 0)


def _any_of(piece: bytes, values: Iterable[int]) -> bool:
    return any(value in piece for value in values)


def _exact(piece: bytes, size: int, fraction: int) -> tuple[int, int]:
    import numpy as np

    bits: Array = np.frombuffer(piece, f"<u{size}") & ((1 << (8 * size - 1)) - 1)
    exponent = (1 << (8 * size - 1)) - (1 << fraction)
    infinite = int((bits == exponent).sum())
    return int((bits >= exponent).sum()) - infinite, infinite
