"""Bring the counters of BatchNorm, `num_batches_tracked`, to the form that a layout has.

Nothing reads them unless a momentum is None, and code that casts or filters state dicts often spoils them: they become
floating numbers with all else, or are left out. Torch itself begins at 0 where a state dict from before they existed
has none, and so does this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from converters.errors import DtypeMismatchError, listed
from converters.formats.stored import StoredTensor
from converters.rules.layout import Layout, spec_of

_COUNTER = "num_batches_tracked"
_WHOLE = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Counters:
    """A state dict with counters as a layout has them.

    Attributes:
        tensors: All tensors by key.
        changes: For each counter that was cast or added: what was done, in words.
        note: The same in a sentence; empty if nothing was done.
    """

    tensors: Mapping[str, StoredTensor]
    changes: Mapping[str, str]
    note: str


def mended(tensors: Mapping[str, StoredTensor], wanted: Layout) -> Counters:
    """Cast counters to the dtype of a layout where that changes no value, and add those that are missing, as 0.

    Args:
        tensors: A state dict with the names of the layout.
        wanted: The layout, of the side of the state dict.

    Raises:
        DtypeMismatchError: If a counter is no whole number that int64 can hold.
        CheckpointError, OSError: If a counter cannot be read.
    """
    keys = [key for key in wanted.tensors if key.endswith(f".{_COUNTER}") and wanted.tensors[key].dtype == "int64"]
    missing = [key for key in keys if key not in tensors]
    other = [
        key
        for key in keys
        if key in tensors and tensors[key].numel() == 1 and spec_of(tensors[key]) != wanted.tensors[key]
    ]
    cast = {key: _cast(key, tensors[key], wanted.tensors[key].shape) for key in other}
    added = {key: StoredTensor.of("int64", wanted.tensors[key].shape, bytes(8)) for key in missing}
    changes = {key: f"{_form(tensors[key])} -> {_form(cast[key])}, the same value" for key in other}
    changes |= {key: "not in the source, set to 0" for key in missing}
    facts = [f"{len(cast)} of another form ({_forms(tensors, other)}) became int64 [], the same values"] if cast else []
    facts += [f"{len(added)} that are missing were set to 0"] if added else []
    note = f"Counters of BatchNorm (`{_COUNTER}`): {' and '.join(facts)}." if facts else ""
    return Counters({**tensors, **cast, **added} if facts else tensors, changes, note)


def _cast(key: str, tensor: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    value = tensor.tolist() if tensor.dtype in (*_WHOLE, *_FLOATS) else None
    while isinstance(value, list):
        (value,) = value
    whole = value is not None and math.isfinite(value) and value == int(value) and -(2**63) <= value < 2**63
    if not whole:
        held = f"of {tensor.dtype}" if value is None else f"{value} of {tensor.dtype}"
        raise DtypeMismatchError(
            f"The counter `{key}` is {held}, expected a whole number of int64; remove it from the source, and it is "
            "set to 0."
        )
    return StoredTensor.of("int64", shape, int(value).to_bytes(8, "little", signed=True))


def _form(tensor: StoredTensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _forms(tensors: Mapping[str, StoredTensor], keys: list[str]) -> str:
    return listed(sorted({_form(tensors[key]) for key in keys})).replace("`", "")
