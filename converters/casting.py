"""Other floating dtypes: every floating tensor is rounded to one, piece by piece; whole numbers stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.errors import CastError, CheckpointError
from converters.layout import Layout
from converters.mapping import Mapping as KeyMapping
from converters.stored import CHUNK, ITEM_SIZES, Storage, StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

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
        CheckpointError: If the source is damaged, or torch lacks a dtype.
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
    total = Losses()
    for wide, narrow in _pieces(tensor, dtype):
        finite = wide.isfinite()
        total = Losses(
            total.overflows + int((finite & ~narrow.isfinite()).sum()),
            total.zeros + int(((wide != 0) & (narrow == 0)).sum()),
            max(total.largest, float(wide[finite].abs().max()) if finite.any() else 0.0),
        )
    return total


def is_floating(dtype: str) -> bool:
    """Tell whether a dtype is one of real floating-point numbers."""
    return "float" in dtype


def accepting_floats(wanted: Layout, rules: KeyMapping, state_dict: Mapping[str, StoredTensor]) -> Layout:
    """Return the layout with the source's floating dtypes in place of its own, since they will be cast anyway."""
    found = {
        match.target: tensor.dtype for key, tensor in state_dict.items() if (match := rules.match(key)) is not None
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


def _pieces(tensor: StoredTensor, dtype: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the elements piece by piece, each as it is (but not narrower than float32) and rounded."""
    import torch

    held = getattr(torch, tensor.dtype, None)
    if held is None:
        raise CheckpointError(f"The installed torch {torch.__version__} has no dtype {tensor.dtype}; use a newer one.")
    for chunk in tensor.chunks():
        exact = torch.frombuffer(bytearray(chunk), dtype=torch.uint8).view(held)
        wide = exact if held in (torch.float32, torch.float64) else exact.to(torch.float32)
        narrow = wide.to(getattr(torch, dtype))
        yield wide, torch.where(narrow.isnan(), torch.nan, narrow)


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
        import torch

        if (begin, length) != (0, self.nbytes):
            whole = self.read(0, self.nbytes)
            yield from (whole[at : min(at + size, begin + length)] for at in range(begin, begin + length, size))
            return
        left = b""
        for _, narrow in _pieces(self._tensor, self._dtype):
            left += narrow.view(torch.uint8).numpy().tobytes()
            full = len(left) - len(left) % size
            yield from (left[at : at + size] for at in range(0, full, size))
            left = left[full:]
        if left:
            yield left
