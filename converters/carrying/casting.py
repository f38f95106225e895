"""Other floating dtypes: every floating tensor is rounded to one, piece by piece; whole numbers stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.errors import CastError, CheckpointError
from converters.formats.stored import CHUNK, ITEM_SIZES, Storage, StoredTensor
from converters.rules.layout import Layout
from converters.rules.mapping import Mapping as KeyMapping

if TYPE_CHECKING:
    from numpy import ndarray as Array

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Losses:
    """What rounding does to a tensor that no rounding error explains.

    Attributes:
        overflows: Elements that were finite and become infinite.
        zeros: Elements that were not zero and become zero.
        largest: Largest absolute value of all finite elements; 0.0 if there is none.
    """

    overflows: int = 0
    zeros: int = 0
    largest: float = 0.0


@dataclass(frozen=True)
class Cast:
    """Tensors after a cast: what was done to those that changed, in words, and how many elements of which became 0."""

    state_dict: dict[str, StoredTensor]
    changes: dict[str, tuple[str, ...]]
    zeros: dict[str, int]


def cast(state_dict: Mapping[str, StoredTensor], dtype: str) -> Cast:
    """Round every floating tensor to `dtype`; every NaN becomes the same NaN.

    The values are looked at here, but rounded only when they are read, so that memory does not grow.

    Args:
        state_dict: The tensors by key. Whole numbers, bools and complex numbers are left as they are.
        dtype: `float16`, `bfloat16` or `float32`.

    Raises:
        CastError: If a finite number would become infinite.
        CheckpointError: If the source is damaged, or has a dtype that torch, or the installed one, does not know.
        OSError: If the source cannot be read.
    """
    done = Cast(dict(state_dict), {}, {})
    for key, tensor in sorted(state_dict.items()):
        if not is_floating(tensor.dtype) or tensor.dtype == dtype:
            continue
        lost = losses(tensor, dtype)
        if lost.overflows:
            raise CastError(
                f"{lost.overflows} of {tensor.numel()} elements of key `{key}` would be infinite as {dtype} (largest "
                f"{lost.largest:.6g}); choose a dtype with a wider range, such as bf16."
            )
        done.state_dict[key] = StoredTensor(dtype, tensor.shape, CastStorage(tensor, dtype))
        if lost.zeros:
            done.zeros[key] = lost.zeros
        zeros = f", {lost.zeros} of {tensor.numel()} elements became 0" if lost.zeros else ""
        done.changes[key] = (f"{tensor.dtype} to {dtype}{zeros}",)
    return done


def losses(tensor: StoredTensor, dtype: str) -> Losses:
    """Count what rounding a tensor to `dtype` loses.

    Raises:
        CheckpointError, OSError: As `cast` says.
    """
    import numpy as np

    total = Losses()
    for wide, bits in _pieces(tensor, dtype):
        narrow, finite = _as_float(bits), np.isfinite(wide)
        total = Losses(
            total.overflows + int(np.count_nonzero(finite & ~np.isfinite(narrow))),
            total.zeros + int(np.count_nonzero((wide != 0) & (narrow == 0))),
            float(np.abs(wide).max(where=finite, initial=total.largest)),
        )
    return total


def is_floating(dtype: str) -> bool:
    """Tell whether a dtype is one of real floating-point numbers."""
    return "float" in dtype


def accepting_floats(wanted: Layout, rules: KeyMapping, state_dict: Mapping[str, StoredTensor]) -> Layout:
    """Return the layout with the source's floating dtypes in place of its own, since they will be cast anyway."""
    found = {
        target: tensor.dtype
        for key, tensor in state_dict.items()
        if (match := rules.match(key)) is not None
        for target in match.targets
    }
    tensors = {
        key: replace(spec, dtype=found[key]) if is_floating(spec.dtype) and is_floating(found.get(key, "")) else spec
        for key, spec in wanted.tensors.items()
    }
    return replace(wanted, tensors=tensors)


def with_floats(wanted: Layout, dtype: str) -> Layout:
    """Return the layout with `dtype` in place of every floating dtype."""
    tensors = {
        key: replace(spec, dtype=dtype) if is_floating(spec.dtype) else spec for key, spec in wanted.tensors.items()
    }
    return replace(wanted, tensors=tensors)


def _pieces(tensor: StoredTensor, dtype: str) -> Iterator[tuple[Array, Array]]:
    """Yield the elements piece by piece: as they are, but not narrower than float32, and rounded."""
    for chunk in tensor.chunks():
        wide = _widened(chunk, tensor.dtype)
        yield wide, _rounded(wide, dtype)


def _rounded(wide: Array, dtype: str) -> Array:
    """Round numbers, to nearest and ties to even; of bfloat16, which numpy lacks, the bits are returned in uint16."""
    import numpy as np

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype == "bfloat16":
            bits = wide.astype(np.float32).view(np.uint32)
            narrow = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            return np.where(np.isnan(wide), 0x7FC0, narrow).astype(np.uint16)
        narrow = wide.astype(dtype)
        return np.where(np.isnan(narrow), narrow.dtype.type("nan"), narrow)


def _widened(data: bytes | memoryview, dtype: str) -> Array:
    import numpy as np

    if dtype == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype in ("float64", "float32", "float16"):
        found = np.frombuffer(data, dtype)
        return found.astype(np.float32) if dtype == "float16" else found
    import torch  # alone knows floats of 8 bits

    held = getattr(torch, dtype, None)
    if held is None:
        raise CheckpointError(f"The installed torch {torch.__version__} has no dtype {dtype}; use a newer one.")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(held).to(torch.float32).numpy()


def _as_float(narrow: Array) -> Array:
    """Return rounded elements as numbers; only those of bfloat16 are none yet."""
    import numpy as np

    return _widened(narrow.tobytes(), "bfloat16") if narrow.dtype == np.uint16 else narrow


class CastStorage(Storage):
    """The elements of a tensor, rounded to another dtype whenever they are read."""

    def __init__(self, tensor: StoredTensor, dtype: str) -> None:
        """Stand for the elements of `tensor`, row-major, as `dtype`."""
        self.name, self.nbytes = tensor.storage.name, tensor.numel() * ITEM_SIZES[dtype]
        self._tensor, self._dtype = tensor, dtype

    def check(self) -> None:
        """Verify the check sum of what the elements are read from."""
        self._tensor.storage.check()

    def read(self, begin: int, length: int) -> bytes:
        """Return `length` bytes from `begin` on."""
        return b"".join(self.chunks(begin, length))

    def chunks(self, begin: int, length: int, size: int = CHUNK) -> Iterator[bytes]:
        """Yield `length` bytes from `begin` on, `size` bytes each but for the last."""
        if (begin, length) != (0, self.nbytes):
            whole = self.read(0, self.nbytes)
            yield from (whole[at : min(at + size, begin + length)] for at in range(begin, begin + length, size))
            return
        left = b""
        for _, narrow in _pieces(self._tensor, self._dtype):
            left += narrow.tobytes()
            full = len(left) - len(left) % size
            yield from (left[at : at + size] for at in range(0, full, size))
            left = left[full:]
        if left:
            yield left
