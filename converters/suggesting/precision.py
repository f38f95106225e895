"""Checkpoints of which one was rounded: numbers are compared in the dtype that both can be rounded to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converters.carrying import casting
from converters.errors import CastError
from converters.formats.stored import StoredTensor

#: Dtypes that numbers of a dtype may have been before they were rounded to it.
_WIDER = {"float16": ("float32", "float64"), "bfloat16": ("float32", "float64"), "float32": ("float64",)}
Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Alike:
    """Two sides with one floating dtype.

    Attributes:
        a, b: The tensors by key.
        note: What was done, or cannot be, in a sentence; None where the dtypes are the same, or several on a side.
        is_comparable: Whether equal numbers may tell something.
    """

    a: Tensors
    b: Tensors
    note: str | None = None
    is_comparable: bool = True


def rounded(a: Tensors, b: Tensors) -> Alike:
    """Return both with the floating dtype of the narrower one, if each has one floating dtype.

    Raises:
        CheckpointError, OSError: If a tensor cannot be read.
    """
    dtypes = [{tensor.dtype for tensor in side.values() if "float" in tensor.dtype} for side in (a, b)]
    if any(len(of_side) != 1 for of_side in dtypes) or dtypes[0] == dtypes[1]:
        return Alike(a, b)
    (one,), (other,) = dtypes
    both = f"A is {one} and B {other}"
    narrow = one if other in _WIDER.get(one, ()) else other if one in _WIDER.get(other, ()) else None
    if narrow is None:
        note = f"{both}, of which neither is a rounded form of the other, so numbers were not compared."
        return Alike(a, b, note, is_comparable=False)
    try:
        a, b = (casting.cast(side, narrow).state_dict for side in (a, b))
    except CastError:
        return Alike(a, b, f"{both}, and some numbers are too large for {narrow}, so they were not compared.", False)
    return Alike(
        a, b, f"{both}; numbers were compared in {narrow}. Rules change no dtype; `--dtype` of `convert` does."
    )
