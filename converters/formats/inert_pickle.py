"""What the names in a checkpoint's pickle mean, as data: tensors still in the file, and inert stand-ins.

Understood are containers, numbers, text, tensors, parameters and numpy's numbers and arrays. Every other global, and
all that a pickle wants to make of it, becomes a `Foreign`, which remembers and does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converters.errors import MalformedError
from converters.formats import pickle_machine, pickle_meaning
from converters.formats.stand_ins import Dtype, Foreign, NumpyArray, NumpyDtype
from converters.formats.stored import ITEM_SIZES, Storage, StoredTensor

_MOST_GLOBALS = 10_000
_LONGEST_NAME = 1024
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_QUANTISED = {
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
_STORAGE_MODULES = ("torch", "torch.storage", "torch.cuda")
_PLAIN_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")


@dataclass(eq=False)
class _StorageType:
    """A class of storages: the dtype of their elements, or one that is as wide, where they are quantised."""

    dtype: str
    quantised: bool


@dataclass(eq=False)
class _Typed:
    """A storage, and the dtype of its elements; None for quantised ones."""

    dtype: str | None
    storage: Storage


@dataclass(eq=False)
class _Known:
    """A global that is understood, and what a call of it returns."""

    name: str
    call: Callable[..., Any]


@dataclass(frozen=True)
class Unpickled:
    """What a pickle held.

    Attributes:
        content: Python's own containers, numbers and text, `StoredTensor`, `Foreign` and `Dtype`. What is understood
            but stands alone, such as a storage without a tensor, is an object that means nothing elsewhere. Containers
            may be nested very deep, stand in several places, or contain themselves.
        foreign: Sorted names of the globals that were made inert.
        end: The byte after the pickle.
    """

    content: Any
    foreign: tuple[str, ...]
    end: int


def unpickle(
    data: Any, storage: Callable[[str, str, int, tuple[Any, ...]], Storage], most_bytes: int, begin: int = 0
) -> Unpickled:
    """Read a pickle as data.

    Args:
        data: What the pickle stands in: bytes or a memory map.
        storage: Finds a storage by its dtype, its key, its number of elements and what else the file says of it.
        most_bytes: Refuse tensors that take more, as they could by repeating elements.
        begin: Where the pickle begins.

    Raises:
        MalformedError: If the pickle is damaged, or made to take much time or memory.
    """
    meaning = _Meaning(storage, most_bytes, len(data))
    content, end = pickle_machine.read(data, begin, meaning)
    return Unpickled(content, tuple(sorted(meaning.foreign)), end)


class _Meaning:
    """See `pickle_meaning.Meaning`."""

    def __init__(
        self, storage: Callable[[str, str, int, tuple[Any, ...]], Storage], most_bytes: int, to_copy: int
    ) -> None:
        self._storage, self._most_bytes = storage, most_bytes
        self._to_copy = to_copy  # characters and items; a pickle may have the same one copied again and again
        self.keys = pickle_meaning.Keys()
        self.foreign: dict[str, Foreign] = {}
        calls: dict[Callable[..., Any], tuple[str, ...]] = {
            self._dict: ("collections.OrderedDict",),
            self._empty_dict: ("collections.defaultdict",),
            self._counter: ("collections.Counter",),
            self._size: ("torch.Size",),
            self._set: ("builtins.set", "__builtin__.set"),
            self._frozenset: ("builtins.frozenset", "__builtin__.frozenset"),
            self._bytes: ("builtins.bytearray", "__builtin__.bytearray", "builtins.bytes", "__builtin__.bytes"),
            self._complex: ("builtins.complex", "__builtin__.complex"),
            self._encoded: ("_codecs.encode",),
            self._reconstructed: ("copyreg._reconstructor", "copy_reg._reconstructor"),
            self._tensor: ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
            self._tensor_v3: ("torch._utils._rebuild_tensor_v3",),
            self._parameter: ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
            self._typed_tensor: ("torch._tensor._rebuild_from_type_v2",),
            self._numpy_dtype: ("numpy.dtype",),
            self._numpy_scalar: ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
            self._numpy_array: ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
        }
        self._known = {name: _Known(name, call) for call, names in calls.items() for name in names}
        for name in (*_PLAIN_TENSORS, "numpy.ndarray"):
            self._known[name] = _Known(name, partial(_remembered, name))

    def find(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in self._known:
            return self._known[full]
        if module in _STORAGE_MODULES and name in _STORAGES:
            return _StorageType(_STORAGES[name], False)
        if module in _STORAGE_MODULES and name in _QUANTISED:
            return _StorageType(_QUANTISED[name], True)
        if module == "torch" and name in ITEM_SIZES:
            return Dtype(name)
        if full not in self.foreign:
            if len(full) > _LONGEST_NAME or len(self.foreign) == _MOST_GLOBALS:
                raise MalformedError("its pickle names absurdly long or absurdly many globals")
            self.foreign[full] = Foreign(full)
        return self.foreign[full]

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if isinstance(function, _Known):
            if kwargs:
                raise ValueError(f"{function.name} is called with named arguments")
            return function.call(*args)
        if isinstance(function, Foreign):
            return Foreign(function.name, args, kwargs)
        raise ValueError(f"a {type(function).__name__} is called")

    def build(self, thing: Any, state: Any) -> None:
        if isinstance(thing, NumpyArray):
            thing.state, thing.values = state, self._array_values(state)
        elif isinstance(thing, Foreign) and thing.args is not None:
            thing.state = state
        elif isinstance(thing, NumpyDtype) and type(state) is tuple and len(state) > 1:
            thing.order = state[1]
        elif not isinstance(thing, (dict, StoredTensor)):  # attributes that somebody hung on these are left out
            raise ValueError(f"a state is set in a {type(thing).__name__}")

    def extend(self, thing: Any, items: list[Any]) -> None:
        made = _made(thing)
        made.items = made.items or []
        made.items.extend(items)

    def update(self, thing: Any, items: list[Any]) -> None:
        made = _made(thing)
        made.pairs = made.pairs or []
        made.pairs.extend(zip(items[::2], items[1::2]))

    def persistent(self, pid: Any) -> Any:
        if type(pid) is not tuple or len(pid) < 2:
            raise ValueError("a persistent id is not that of a storage")
        if pid[0] == "module" and isinstance(pid[1], Foreign):
            return pid[1]
        if pid[0] != "storage" or len(pid) < 5:
            raise ValueError("a persistent id is not that of a storage")
        _, kind, key, _, numel, *more = pid
        if type(kind) is not _StorageType or type(key) is not str or type(numel) is not int or not 0 <= numel < 2**62:
            raise ValueError("a storage is not described by a key and a whole number")
        storage = self._storage(kind.dtype, key, numel, tuple(more))
        return _Typed(None if kind.quantised else kind.dtype, storage)

    def _tensor(
        self,
        typed: Any,
        offset: Any,
        size: Any,
        stride: Any,
        grad: Any = None,
        hooks: Any = None,
        flags: Any = None,
    ) -> Any:
        return self._placed(typed, typed.dtype if type(typed) is _Typed else None, offset, size, stride, flags)

    def _tensor_v3(
        self,
        typed: Any,
        offset: Any,
        size: Any,
        stride: Any,
        grad: Any,
        hooks: Any,
        dtype: Any,
        flags: Any = None,
    ) -> Any:
        return self._placed(typed, dtype.name if type(dtype) is Dtype else None, offset, size, stride, flags)

    def _placed(self, typed: Any, dtype: str | None, offset: Any, size: Any, stride: Any, flags: Any) -> Any:
        if isinstance(typed, Foreign) or dtype is None or flags:  # quantised, unknown, or to be conjugated or negated
            return Foreign("torch.Tensor", (typed, offset, size, stride, flags))
        if type(typed) is not _Typed or type(size) is not tuple or type(stride) is not tuple:
            raise ValueError("a tensor is described by something else than a storage and whole numbers")
        return StoredTensor(dtype, size, typed.storage, offset, stride, self._most_bytes)

    def _typed_tensor(self, function: Any, kind: Any, args: Any, state: Any) -> Any:
        """Rebuild a tensor that has attributes, or one of a subclass; the latter may mean anything by its numbers."""
        name = _name_of(kind)
        rebuilds = isinstance(function, _Known) and function.name.startswith("torch._utils._rebuild_")
        if name in _PLAIN_TENSORS and rebuilds and type(args) is tuple:
            return function.call(*args)
        return Foreign(name, (function, args), state=state)

    def _parameter(self, data: Any, *ignored: Any) -> Any:
        if not isinstance(data, (StoredTensor, Foreign)):
            raise ValueError("a parameter is made of something else than a tensor")
        return data

    def _dict(self, pairs: Any = ()) -> dict[Any, Any]:
        if type(pairs) not in (list, tuple) or not all(
            type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError("an ordered dict is made of something else than pairs")
        self._copied(pairs)
        self.keys.check([key for key, _ in pairs])
        return dict(pairs)

    def _empty_dict(self, *factory: Any) -> dict[Any, Any]:
        return {}

    def _counter(self, counts: Any = None) -> Counter[Any]:
        if counts is not None and type(counts) is not dict:
            raise ValueError("a counter is made of something else than a dict")
        self._copied(counts or {})
        counter: Counter[Any] = Counter()
        dict.update(counter, counts or {})
        return counter

    def _size(self, numbers: Any = ()) -> tuple[Any, ...]:
        if type(numbers) is not tuple:
            raise ValueError("a size is made of something else than numbers")
        return numbers

    def _set(self, items: Any = ()) -> set[Any]:
        return set(self._keys(items))

    def _frozenset(self, items: Any = ()) -> frozenset[Any]:
        return frozenset(self._keys(items))

    def _keys(self, items: Any) -> Sequence[Any]:
        if type(items) not in (tuple, list):
            raise ValueError("a set is made of something else than a list")
        self._copied(items)
        self.keys.check(items)
        return items

    def _bytes(self, data: Any = b"", encoding: Any = None) -> bytes:
        """Make bytes of bytes, or of text as protocol 2 does; never of a number, which would allocate as many."""
        if type(data) is str:
            return self._encoded(data, encoding)
        if type(data) is not bytes:
            raise ValueError(f"bytes are made of a {type(data).__name__}")
        return data

    def _complex(self, real: Any, imaginary: Any = 0.0) -> complex:
        if type(real) not in (int, float) or type(imaginary) not in (int, float):
            raise ValueError("a complex number is made of something else than numbers")
        return complex(real, imaginary)

    def _encoded(self, text: Any, encoding: Any = "utf-8") -> bytes:
        if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8"):
            raise ValueError("text is encoded in no way that pickles use")
        self._copied(text)
        return text.encode(encoding)

    def _reconstructed(self, kind: Any, base: Any, content: Any) -> Any:
        """Make an object as protocols 0 and 1 do."""
        return kind.call() if isinstance(kind, _Known) else Foreign(_name_of(kind), (content,))

    def _numpy_dtype(self, kind: Any, *ignored: Any) -> NumpyDtype | Foreign:
        return NumpyDtype(kind) if type(kind) is str else Foreign("numpy.dtype", (kind,))

    def _numpy_scalar(self, dtype: Any, data: Any = None) -> Any:
        name, raw = dtype.name if type(dtype) is NumpyDtype else None, self._raw(data)
        if name is None or raw is None or len(raw) != ITEM_SIZES[name]:
            return Foreign("numpy.generic", (dtype, data))
        return StoredTensor.of(name, (), raw).tolist()

    def _numpy_array(self, *args: Any) -> NumpyArray:
        return NumpyArray("numpy.ndarray", args)

    def _array_values(self, state: Any) -> StoredTensor | None:
        """Return the numbers of an array; its state is version, shape, dtype, if the first axis is fastest, data."""
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not NumpyDtype:
            return None
        _, shape, dtype, first_is_fastest, data = state
        raw = self._raw(data)
        if dtype.name is None or raw is None or type(shape) is not tuple:
            return None
        if not first_is_fastest:
            return StoredTensor.of(dtype.name, shape, raw)
        turned = StoredTensor.of(dtype.name, shape[::-1], raw)
        return StoredTensor(dtype.name, shape, turned.storage, 0, turned.stride[::-1])

    def _raw(self, data: Any) -> bytes | None:
        """Return bytes; those that Python 2 wrote may look like text."""
        if type(data) is str:
            self._copied(data)
            return data.encode("utf-8", "surrogatepass")
        return data if type(data) is bytes else None

    def _copied(self, what: Collection[Any]) -> None:
        self._to_copy -= len(what)
        if self._to_copy < 0:
            raise MalformedError("its pickle has the same things copied again and again")


def _made(thing: Any) -> Foreign:
    if not isinstance(thing, Foreign) or thing.args is None:
        raise ValueError(f"items are put into a {type(thing).__name__}")
    return thing


def _name_of(kind: Any) -> str:
    return kind.name if isinstance(kind, (Foreign, _Known)) else type(kind).__name__


def _remembered(name: str, *args: Any) -> Foreign:
    return Foreign(name, args)
