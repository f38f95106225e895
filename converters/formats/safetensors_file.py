"""Read safetensors files: a length, a JSON header, then the tensors' bytes without gaps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.errors import MalformedError
from converters.formats.stored import SourceFile, Storage, StoredTensor

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_LARGEST_HEADER = 6_000_000  # bytes, enough for tens of thousands of tensors; a larger one could mean gigabytes


@dataclass(frozen=True)
class Contents:
    """The tensors by key, still in the file, and the text that came with them."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


def read(source: SourceFile) -> Contents:
    """Read the header.

    Raises:
        MalformedError: If the file is damaged: the header is not JSON of this form, a key stands in it twice, or the
            tensors do not fill the rest of the file exactly.
    """
    length = int.from_bytes(source.read(0, 8), "little") if source.size >= 8 else 0
    begin = 8 + length
    if begin <= source.size and length > _LARGEST_HEADER:
        raise MalformedError(f"its header has {length} bytes, expected at most {_LARGEST_HEADER}")
    if begin > source.size:
        raise MalformedError(
            f"its header declares {length} bytes, the file has {source.size}; it is truncated or damaged"
        )
    try:
        header = json.loads(source.read(8, length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"its header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise MalformedError("its header is damaged (it is not a JSON object)")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise MalformedError("its header is damaged (the metadata are not text)")
    places = sorted((_place(key, entry), key) for key, entry in header.items())
    end = 0
    for (first, last), key in places:
        if first != end:
            raise MalformedError(f"its header is damaged (`{key}` begins at byte {first}, expected {end})")
        end = last
    if begin + end != source.size:
        raise MalformedError(
            f"its tensors end at byte {begin + end}, the file at {source.size}; it is truncated or damaged"
        )
    return Contents({key: _tensor(source, key, entry, begin) for key, entry in header.items()}, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"`{key}` stands in it twice")
    return found


def _place(key: str, entry: Any) -> tuple[int, int]:
    """Return where a tensor's bytes begin and end."""
    fields = entry if isinstance(entry, Mapping) else {}
    offsets, shape = fields.get("data_offsets"), fields.get("shape")
    numbers = [*offsets, *shape] if isinstance(offsets, list) and isinstance(shape, list) else []
    if len(numbers) < 2 or len(offsets) != 2 or not all(type(number) is int and number >= 0 for number in numbers):
        raise MalformedError(f"its header is damaged (`{key}` has no shape or no place)")
    dtype = fields.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise MalformedError(f"`{key}` has the dtype {dtype}, which is not known")
    return offsets[0], offsets[1]


def _tensor(source: SourceFile, key: str, entry: Mapping[str, Any], begin: int) -> StoredTensor:
    first, last = entry["data_offsets"]
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    tensor = StoredTensor(dtype, shape, Storage(key, last - first, source, begin + first, None))
    if tensor.nbytes != last - first:
        raise MalformedError(
            f"`{key}` takes {last - first} bytes, expected {tensor.nbytes} for {list(shape)} of {dtype}"
        )
    return tensor
