"""The tensors of one side of a suggestion: keys, shapes, numbers, and the modules that the keys speak of."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from converters.formats.stored import StoredTensor

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]
_FEW = 4  # different numbers from which on a tensor's content is like no other's by chance
_MANTISSA = 0xFFF  # low bits of a float32 that a number somebody chose, such as 1.0 or 0.5, does not have
_UNSIGNED = (1, 2, 4, 8)  # bytes of numbers that numpy has


@dataclass(frozen=True, eq=False)
class Held:
    """One tensor.

    Attributes:
        key: Its key.
        dtype: As torch writes it, less the `torch.`.
        shape: Its sizes.
        bits: Its numbers as unsigned whole numbers of the same bits, of that shape; None where they are not compared.
    """

    key: str
    dtype: str
    shape: Shape
    bits: np.ndarray | None

    @classmethod
    def of(cls, key: str, tensor: StoredTensor, with_numbers: bool = True) -> Held:
        """Read a tensor.

        Raises:
            CheckpointError, OSError: If it cannot be read.
        """
        if not with_numbers or tensor.itemsize not in _UNSIGNED:
            return cls(key, tensor.dtype, tensor.shape, None)
        import numpy as np

        bits = np.frombuffer(tensor.data(), f"<u{tensor.itemsize}").reshape(tensor.shape)
        return cls(key, tensor.dtype, tensor.shape, bits)

    @cached_property
    def sizes(self) -> Shape:
        """The sizes without those of 1, sorted: the same for every order of the axes."""
        return tuple(sorted(size for size in self.shape if size != 1))

    @cached_property
    def digest(self) -> str | None:
        """Tell the content, in its order."""
        return None if self.bits is None else hashlib.sha256(self.bits.tobytes()).hexdigest()

    @cached_property
    def amount(self) -> str | None:
        """Tell the content without its order."""
        if self.bits is None:
            return None
        import numpy as np

        return hashlib.sha256(np.sort(self.bits, axis=None).tobytes()).hexdigest()

    @cached_property
    def is_telling(self) -> bool:
        """Tell whether its numbers are like no other tensor's by chance: not constant, not a few plain numbers."""
        if self.bits is None or not self.bits.size:
            return False
        import numpy as np

        different = np.unique(self.bits.reshape(-1)[:65536])
        if self.bits.size >= _FEW:
            return len(different) >= _FEW
        return self.dtype == "float32" and bool(((different & _MANTISSA) != 0).all())


@dataclass(frozen=True, eq=False)
class Side:
    """All tensors of one checkpoint or model.

    Attributes:
        name: `A` or `B`.
        tensors: By key, in the order of the file.
        kinds: By key, the class of the module that holds it and its name in there; empty where no model is known.
    """

    name: str
    tensors: Mapping[str, Held]
    kinds: Mapping[str, str] = field(default_factory=dict)
    _memo: dict[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, name: str, tensors: Mapping[str, StoredTensor], with_numbers: bool = True) -> Side:
        """Read all tensors of a state dict."""
        return cls(name, {key: Held.of(key, tensor, with_numbers) for key, tensor in tensors.items()})

    @cached_property
    def modules(self) -> Mapping[str, tuple[str, ...]]:
        """The keys below every module, its path first; the whole is the empty path."""
        below: dict[str, list[str]] = defaultdict(list)
        for key in self.tensors:
            for path in ancestors(key):
                below[path].append(key)
        return {path: tuple(keys) for path, keys in below.items()}

    @cached_property
    def signatures(self) -> Mapping[str, str]:
        """For every module what sizes of tensors it has, as a short text: equal for equal sets of sizes."""
        return {path: self._signature(keys) for path, keys in self.modules.items()}

    def _signature(self, keys: Iterable[str]) -> str:
        sizes = sorted(self.tensors[key].sizes for key in keys)
        return hashlib.sha256(repr(sizes).encode()).hexdigest()[:12]

    def has_parts(self, path: str) -> bool:
        """Tell whether a module holds several modules that have tensors themselves."""
        return len({key.rpartition(".")[0] for key in self.modules.get(path, ())}) > 1


def ancestors(key: str) -> tuple[str, ...]:
    """Return the paths of the modules that a key is in, the innermost first; the whole is the empty path."""
    segments = key.split(".")
    return tuple(".".join(segments[:length]) for length in range(len(segments) - 1, -1, -1))


def common_module(keys: Iterable[str]) -> str:
    """Return the innermost module that all keys are in."""
    paths = [key.split(".")[:-1] for key in keys]
    shared = []
    for segments in zip(*paths):
        if len(set(segments)) > 1:
            break
        shared.append(segments[0])
    return ".".join(shared)


def elements(shape: Shape) -> int:
    """Return the number of elements of a shape."""
    return math.prod(shape)
