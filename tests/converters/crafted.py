"""Files put together byte by byte, as no honest writer would."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def text(value: str) -> bytes:
    """Push text."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """Push a whole number."""
    return pickle.dumps(value, 2)[2:-1]


def found(name: str) -> bytes:
    """Push the global `module.name`."""
    module, _, last = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def pushed(value: Any) -> bytes:
    """Push what pickles on its own."""
    return pickle.dumps(value, 2)[2:-1]


def called(function: bytes, *args: bytes) -> bytes:
    """Call what `function` pushes with what the others push."""
    return function + b"(" + b"".join(args) + b"tR"


def mapped(**items: bytes) -> bytes:
    """Push a dict."""
    return b"}" + b"".join(text(key) + value + b"s" for key, value in items.items())


def whole(fragment: bytes, protocol: int = 2) -> bytes:
    """Make a pickle of what pushes one thing."""
    return b"\x80" + bytes([protocol]) + fragment + b"."


def tensor(
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    offset: int = 0,
    numel: int = 4,
    key: str = "0",
    kind: str = "torch.FloatStorage",
    view: bytes = b"",
) -> bytes:
    """Push a tensor as torch describes it; `view` is the sixth part of a persistent id before 1.6."""
    storage = b"(" + text("storage") + found(kind) + text(key) + text("cpu") + number(numel) + view + b"tQ"
    return called(
        found("torch._utils._rebuild_tensor_v2"),
        storage,
        number(offset),
        pushed(shape),
        pushed(stride),
        b"\x89",
        called(found("collections.OrderedDict")),
    )


def zipped(records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Make a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return file.getvalue()


def zipped64(records: Mapping[str, bytes]) -> bytes:
    """Make a zip file in the form for more than 4 GB, whose directory keeps every number in 64 bits."""
    body, directory = b"", b""
    for name, data in records.items():
        crc, encoded = zlib.crc32(data), name.encode()
        wide = struct.pack("<2H3Q", 1, 24, len(data), len(data), len(body))
        sizes = (crc, 2**32 - 1, 2**32 - 1, len(encoded))
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, *sizes, 28, 0, 0, 0, 0, 2**32 - 1)
        directory += encoded + wide
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, crc, len(data), len(data), len(encoded), 0)
        body += encoded + data
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[len(records)] * 2, len(directory), len(body))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(directory), 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[2**16 - 1] * 2, *[2**32 - 1] * 2, 0)
    return body + directory + end + locator + short


def torch_zip(data: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """Make a file as torch does since 1.6; storage 0 holds the floats 1 to 4 unless told otherwise."""
    storages = {"0": struct.pack("<4f", 1, 2, 3, 4)} if storages is None else storages
    return zipped({"a/data.pkl": data, **{f"a/data/{key}": content for key, content in storages.items()}})


def torch_legacy(
    data: bytes, storages: Mapping[str, bytes] | None = None, itemsize: int = 4, machine: Any = MACHINE
) -> bytes:
    """Make a file as torch did before 1.6."""
    storages = {"0": struct.pack("<4f", 1, 2, 3, 4)} if storages is None else storages
    parts = [MAGIC, pickle.dumps(machine, 2), data, pickle.dumps(sorted(storages), 2)]
    parts += [struct.pack("<q", len(storages[key]) // itemsize) + storages[key] for key in sorted(storages)]
    return b"".join(parts)


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """Make a safetensors file of a header, JSON data or bytes, and the tensors' bytes."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + data


def written(path: Path, data: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(data)
    return path
