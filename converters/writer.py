"""Write checkpoints: same input, same bytes; the whole file or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from converters.errors import CheckpointError, OutputExistsError

if TYPE_CHECKING:
    from torch import Tensor

_SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
SUFFIXES = (".pth", ".safetensors")


def check_destination(path: str | Path, force: bool) -> None:
    """Refuse a destination before any work is done for it.

    Raises:
        CheckpointError: If the suffix or the folder is wrong.
        OutputExistsError: If the file is there already and `force` is not set.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"The output `{path}` has suffix `{path.suffix}`, expected {' or '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise CheckpointError(f"The folder of the output `{path}` does not exist; create it first.")
    if path.is_dir():
        raise CheckpointError(f"The output `{path}` is a folder, expected a file name.")
    if path.exists() and not force:
        raise OutputExistsError(f"The output `{path}` exists already; pass --force to replace it.")


def write(path: str | Path, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], force: bool = False) -> None:
    """Write a state dict to `.pth` or `.safetensors`, by the suffix, keys sorted.

    Args:
        path: The file to write.
        state_dict: The tensors; views and shared storages are written out on their own.
        meta: Plain data; in safetensors, what is not text is kept as JSON.
        force: Replace an existing file.

    Raises:
        CheckpointError, OutputExistsError: As `check_destination` says.
        OSError: If the file cannot be written; nothing is left behind then.
    """
    path = Path(path)
    check_destination(path, force)
    save = _save_safetensors if path.suffix == ".safetensors" else _save_pth
    with _published(path) as file:
        save(file, dict(sorted(state_dict.items())), dict(sorted(meta.items())))


@contextmanager
def _published(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; give it that name only if the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # 'x' and not tempfile: the file gets the permissions that the user's umask asks for
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last through a power cut, where folders can be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _save_pth(file: IO[bytes], state_dict: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Save with torch, through a file object: by path, torch would write the temporary name into the file."""
    import torch

    compact = {key: _compact(tensor).clone() for key, tensor in state_dict.items()}
    try:
        torch.save({"meta": meta, "state_dict": compact}, file)
    except RuntimeError as error:
        # a write that fails leaves the archive unclosed; torch then reports that, and not the disk that is full
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _save_safetensors(file: IO[bytes], state_dict: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write the format itself: the library orders the metadata by a random hash, so its bytes differ between runs."""
    import torch

    # wide dtypes first keeps every tensor aligned to its item size
    keys = sorted(state_dict, key=lambda key: (-state_dict[key].element_size(), key))
    file.write(_safetensors_header(keys, state_dict, meta))
    for key in keys:
        flat = _compact(state_dict[key]).reshape(-1)
        if flat.numel():
            file.write(memoryview(flat.view(torch.uint8).numpy()))


def _safetensors_header(keys: list[str], state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Return the length and the JSON header: metadata, then for each tensor its dtype, shape and place."""
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in meta.items()}
    header: dict[str, Any] = {"__metadata__": text}
    end = 0
    for key in keys:
        tensor = state_dict[key]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _SAFETENSORS_DTYPES:
            raise CheckpointError(f"Key `{key}` has dtype {dtype}, which is not written to .safetensors; use .pth.")
        header[key] = {"dtype": _SAFETENSORS_DTYPES[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    data = json.dumps(header, separators=(",", ":")).encode()
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


def _compact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
