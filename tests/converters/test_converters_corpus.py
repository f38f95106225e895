"""Odd and bad inputs through the command line: each is converted to the right bits, or refused in one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from converters.cli.main import cli
from converters.reading import checkpoint
from tests.converters.crafted import (
    called,
    found,
    mapped,
    pushed,
    safetensors,
    tensor,
    torch_legacy,
    torch_zip,
    whole,
    zipped,
    zipped64,
)
from tests.models import layout_of as stored_layout

REPO = Path(__file__).resolve().parents[2]
StateDict = dict[str, Tensor]
_BIAS = "bbox_head.cls_branches.0.bias"
_WEIGHT = "backbone.conv1.weight"
_SQUARE = "memory_trans_fc.weight"


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _old(content: Any, **options: Any) -> bytes:
    return _saved(content, _use_new_zipfile_serialization=False, **options)


def _views_of_one(state: StateDict) -> StateDict:
    """Lay all floats into one storage, each row-major."""
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    whole_storage = torch.cat([value.reshape(-1) for value in floats.values()])
    views, at = {}, 0
    for key, value in floats.items():
        views[key] = whole_storage[at : at + value.numel()].view(value.shape)
        at += value.numel()
    return state | views


def _overlapping(state: StateDict) -> StateDict:
    """Let two biases share half of their elements."""
    first, second = (f"bbox_head.reg_branches.{index}.0.bias" for index in (0, 1))
    size = state[first].numel()
    shared = torch.cat([state[first], state[second][size // 2 :]])
    return state | {first: shared[:size], second: shared[size // 2 : size // 2 + size]}


def _with_attributes(state: StateDict) -> StateDict:
    odd = {key: torch.nn.Parameter(value) for key, value in state.items() if value.is_floating_point()}
    odd[_BIAS].touched = "yes"
    odd[_WEIGHT] = torch.nn.Buffer(state[_WEIGHT])
    return state | odd


def _named(state: StateDict) -> OrderedDict[str, Tensor]:
    named = OrderedDict(state)
    named._metadata = OrderedDict({"": {"version": 1}})
    return named


def _on_cuda(state: StateDict) -> bytes:
    """Save as a machine with a GPU does."""
    cpu, cuda = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    pickled, storages = _records(_saved(state))
    return torch_zip(pickled.replace(cpu, cuda), storages)


def _records(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = archive.namelist()[0].partition("/")[0]
        names = [name for name in archive.namelist() if name.startswith(f"{root}/data/")]
        return archive.read(f"{root}/data.pkl"), {name.rpartition("/")[2]: archive.read(name) for name in names}


def _without_check_sums(state: StateDict) -> bytes:
    torch.serialization.set_crc32_options(False)
    try:
        return _saved(state)
    finally:
        torch.serialization.set_crc32_options(True)


# Files of the state dict that the test is given, or of one with the same values in another form.
SOUND: dict[str, Callable[[StateDict], bytes]] = {
    "torch": lambda s: _saved(s),
    "torch before 1.6": lambda s: _old(s),
    "safetensors": lambda s: safetensors_bytes(s),
    "safetensors, metadata": lambda s: safetensors_bytes(s, {"format": "pt", "dataset_meta": "[" * 5000}),
    "protocol 4": lambda s: _saved(s, pickle_protocol=4),
    "protocol 5": lambda s: _saved(s, pickle_protocol=5),
    "before 1.6, protocol 4": lambda s: _old(s, pickle_protocol=4),
    "not row-major": lambda s: _saved({k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in s.items()}),
    "channels last": lambda s: _saved(
        {k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in s.items()}
    ),
    "channels last, before 1.6": lambda s: _old(
        {k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in s.items()}
    ),
    "every second element": lambda s: _saved(s | {_BIAS: s[_BIAS].repeat_interleave(2)[::2]}),
    "all in one storage": lambda s: _saved(_views_of_one(s)),
    "all in one storage, before 1.6": lambda s: _old(_views_of_one(s)),
    "parameters with attributes": lambda s: _saved(_with_attributes(s)),
    "ordered, with metadata": lambda s: _saved({"state_dict": _named(s)}),
    "under model": lambda s: _saved({"model": s, "epoch": 3}),
    "of a parallel module": lambda s: _saved({"state_dict": {f"module.{key}": value for key, value in s.items()}}),
    "from a GPU": _on_cuda,
    "without check sums": _without_check_sums,
    "zip64": lambda s: zipped64({f"a/{name}": data for name, data in _flat(_records(_saved(s)))}),
    "bytes behind, before 1.6": lambda s: _old(s) + b"and more",
    "folder of another alphabet": lambda s: zipped(
        {f"gewäß/{name}": data for name, data in _flat(_records(_saved(s)))}
    ),
}


def _flat(records: tuple[bytes, dict[str, bytes]]) -> list[tuple[str, bytes]]:
    return [("data.pkl", records[0]), *((f"data/{key}", data) for key, data in records[1].items())]


# Files whose values differ from those given: what they should be, and the file.
CHANGED: dict[str, Callable[[StateDict], StateDict]] = {
    "one value repeated": lambda s: s | {_BIAS: torch.tensor([0.5]).expand(s[_BIAS].shape)},
    "tied": lambda s: s | {"bbox_head.reg_branches.0.0.bias": s["bbox_head.reg_branches.1.0.bias"]},
    "overlapping": _overlapping,
    "NaN, infinities and zeros": lambda s: (
        s | {_BIAS: torch.tensor([float("nan"), float("inf"), -0.0])[: s[_BIAS].numel()]}
    ),
}
_RANDOM = random.Random(5)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def _entry(**changes: Any) -> bytes:
    return safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}, bytes(4))


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def _in_directory(records: dict[str, bytes], at: int, data: bytes, name: str = "a/data/0") -> bytes:
    """Change the entry that a zip file's directory has of a record: `data` stands `at` bytes behind its begin."""
    made = zipped(records)
    entry = made.rindex(b"PK\x01\x02", 0, made.rindex(name.encode()))
    return made[: entry + at] + data + made[entry + at + len(data) :]


def _at_end(made: bytes, signature: bytes, at: int, data: bytes) -> bytes:
    """Change what stands `at` bytes behind the last place of a signature."""
    begin = made.rindex(signature) + at
    return made[:begin] + data + made[begin + len(data) :]


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


def _weight(value: Any) -> Callable[[StateDict], bytes]:
    return lambda s: _saved(s | {_SQUARE: value})


def _as(dtype: torch.dtype) -> Callable[[StateDict], bytes]:
    return lambda s: _saved({key: v.to(dtype) if v.is_floating_point() else v for key, v in s.items()})


_RECORDS = {"a/data.pkl": whole(mapped(x=tensor())), "a/data/0": struct.pack("<4f", 1, 2, 3, 4)}

# Files, the exit code, and what is said of them.
BAD: dict[str, tuple[Callable[[StateDict], bytes], int, str]] = {
    **{
        f"{size} random bytes": (lambda s, n=size: _RANDOM.randbytes(n), 2, "neither a torch zip file nor")
        for size in (1, 7, 8, 9, 100, 10_000, 1_000_000)
    },
    "empty": (lambda s: b"", 2, "is empty"),
    "zeros": (lambda s: bytes(10_000), 2, "begins with nothing but zeros"),
    "text": (lambda s: b"weights\n" * 9, 2, "neither a torch zip file nor"),
    "web page": (lambda s: b"<!DOCTYPE html><html>404", 2, "it is a web page"),
    "Git LFS": (lambda s: b"version https://git-lfs.github.com/spec/v1\n", 2, "git lfs pull"),
    "gzip": (lambda s: gzip.compress(_saved(s)), 2, "it is packed with gzip; unpack it: `gunzip -c "),
    "tar": (lambda s: _tar(), 2, "it is a tar file, as torch wrote before 0.1.10"),
    "TorchScript": (lambda s: _script(), 2, "it is a TorchScript archive; save its state dict: `python -c "),
    "npz": (lambda s: _npz(), 2, "it is a file of numpy's arrays (.npz); make a state dict of it"),
    "zip signature alone": (lambda s: b"PK\x03\x04", 2, "its zip directory is missing"),
    "zip signature and noise": (lambda s: b"PK\x03\x04" + _RANDOM.randbytes(5000), 2, "its zip directory is missing"),
    "pickle signature and noise": (lambda s: b"\x80\x02" + _RANDOM.randbytes(5000), 2, "its pickle is malformed"),
    "pickle of another library": (lambda s: pickle.dumps({"model": {}}), 2, "not one that torch.save wrote"),
    "whole module": (lambda s: _saved(torch.nn.Linear(2, 2)), 2, "is made by torch.nn.modules.linear.Linear"),
    "list": (lambda s: _saved([1, 2]), 2, "its top level is of type list"),
    "number": (lambda s: _saved(3), 2, "its top level is of type int"),
    "tensor": (lambda s: _saved(torch.ones(2)), 2, "its top level is a single tensor"),
    "no tensors": (lambda s: _saved({"state_dict": {}}), 2, "holds no tensors"),
    "optimizer only": (
        lambda s: _saved({"optimizer": {"state": {}}}),
        2,
        "not a state dict: `optimizer` is of type dict",
    ),
    "nested": (lambda s: _saved({"state_dict": {"a": {"b": torch.ones(1)}}}), 1, "fit no known layout"),
    "None": (_weight(None), 2, f"`{_SQUARE}` is of type NoneType"),
    "sparse": (_weight(torch.eye(3).to_sparse()), 2, "is a sparse tensor (to_dense() makes a plain one)"),
    "quantised": (
        _weight(torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
        2,
        "is a quantised tensor (dequantize() makes a plain one)",
    ),
    "meta device": (_weight(torch.empty(3, device="meta")), 2, "is a tensor of the device meta, which has no values"),
    "conjugated": (_weight(torch.ones(3, dtype=torch.complex64).conj()), 2, "to be conjugated or negated"),
    "numpy": (_weight(np.ones(3)), 2, "is an array of numpy (torch.from_numpy makes a tensor of it)"),
    "keys of bytes": (
        lambda s: torch_zip(whole(b"}C\x02\xff\xfe" + tensor() + b"s")),
        2,
        r"key b'\xff\xfe' is not text",
    ),
    "keys of numbers": (lambda s: _saved({1: torch.ones(2)}), 2, "its key 1 is not text"),
    "key that is no Unicode": (
        lambda s: torch_zip(whole(b"}X\x02\x00\x00\x00\xff\xfe" + tensor() + b"s")),
        2,
        "malformed",
    ),
    "half a character in a key": (
        lambda s: torch_zip(whole(mapped(**{"a\ud800": tensor()}))),
        1,
        "fit no known layout",
    ),
    "half a character in an extra key": (lambda s: _saved(s | {"\ud800": torch.ones(1)}), 1, r"Key `\ud800` of the"),
    "commands for the terminal": (lambda s: _saved(s | {"\x1b]0;x\x07\n": torch.ones(1)}), 1, r"Key `\x1b]0;x\x07"),
    "key of 100 000 letters": (lambda s: _saved(s | {"x" * 100_000: torch.ones(1)}), 1, "of the source is matched"),
    "empty key": (lambda s: _saved(s | {"": torch.ones(1)}), 1, "Key `` of the source is matched by no rule"),
    "float16": (_as(torch.float16), 1, "have another dtype"),
    "bfloat16": (_as(torch.bfloat16), 1, "have another dtype"),
    "float8_e4m3fn": (_as(torch.float8_e4m3fn), 1, "have another dtype"),
    "float8_e5m2": (_as(torch.float8_e5m2), 1, "have another dtype"),
    "float64": (_as(torch.float64), 1, "have another dtype"),
    "int8": (_as(torch.int8), 1, "have another dtype"),
    "uint16": (_as(torch.uint16), 1, "have another dtype"),
    "complex64": (_as(torch.complex64), 1, "have another dtype"),
    "complex128, before 1.6": (
        lambda s: _old({k: v.to(torch.complex128) if v.is_floating_point() else v for k, v in s.items()}),
        1,
        "have another dtype",
    ),
    "bool in safetensors": (
        lambda s: safetensors_bytes({k: v.bool() if v.is_floating_point() else v for k, v in s.items()}),
        1,
        "have another dtype",
    ),
    "0-d instead of a vector": (_weight(torch.tensor(1.0)), 1, "have another shape"),
    "no elements": (_weight(torch.zeros(0, 5)), 1, "have another shape"),
    "transposed": (lambda s: _saved(s | {_WEIGHT: s[_WEIGHT].transpose(0, 2)}), 1, "have another shape"),
    "33 dimensions": (_weight(torch.zeros((1,) * 33)), 2, "33 dimensions"),
    "huge shape": (lambda s: torch_zip(whole(mapped(x=tensor((2**40,), (0,))))), 2, "repeats its elements"),
    "negative stride": (lambda s: torch_zip(whole(mapped(x=tensor((4,), (-1,), 3)))), 2, "whole numbers"),
    "storage twice, two lengths": (
        lambda s: torch_zip(whole(mapped(x=tensor(), y=tensor((2,), numel=2)))),
        2,
        "storage 0 declares 8 bytes, its record holds 16",
    ),
    "storage twice, two lengths, before 1.6": (
        lambda s: torch_legacy(whole(mapped(x=tensor(), y=tensor((2,), numel=2)))),
        2,
        "storage 0 declares 8 bytes, and 16 at another place",
    ),
    "storage missing": (lambda s: torch_zip(whole(mapped(x=tensor())), {}), 2, "there is no such record"),
    "big-endian": (
        lambda s: zipped({"a/data.pkl": whole(b"}"), "a/byteorder": b"big"}),
        2,
        "written on a big-endian machine",
    ),
    "record twice": (lambda s: _saved(s).replace(b"/data/11", b"/data/10"), 2, "stands in it twice"),
    "directory cut within an entry": (
        lambda s: _at_end(zipped(_RECORDS), b"PK\x05\x06", 12, b"\x50\0\0\0"),
        2,
        "directory is damaged",
    ),
    "record before the file's end without room for its header": (
        lambda s: _in_directory(_RECORDS, 42, struct.pack("<L", len(zipped(_RECORDS)) - 3)),
        2,
        "directory is damaged",
    ),
    "record encrypted": (
        lambda s: _in_directory(_RECORDS, 8, b"\1\0"),
        2,
        "its records are encrypted, which torch never does",
    ),
    "record beyond the file": (
        lambda s: _in_directory(_RECORDS, 20, struct.pack("<2L", 10**6, 10**6)),
        2,
        "its record a/data/0 ends beyond the file",
    ),
    "record that reaches into the next one": (
        lambda s: _in_directory(_RECORDS, 20, struct.pack("<2L", *[len(_RECORDS["a/data.pkl"]) + 9] * 2), "a/data.pkl"),
        2,
        "its record a/data/0 overlaps another one",
    ),
    "record without its length": (
        lambda s: _in_directory(_RECORDS, 20, b"\xff" * 8),
        2,
        "(a large record without its length)",
    ),
    "directory of a large file alone": (
        lambda s: _at_end(zipped(_RECORDS), b"PK\x05\x06", 8, b"\xff" * 4),
        2,
        "(a large file without the large form of it)",
    ),
    "large directory without its signature": (
        lambda s: _at_end(zipped64(_RECORDS), b"PK\x06\x06", 0, b"PK\0\0"),
        2,
        "(a large file without the large form of it)",
    ),
    **{
        f"view {view}, before 1.6": (
            lambda s, view=view: torch_legacy(whole(mapped(x=tensor((2,), view=pushed(view))))),
            2,
            f"a view of storage 0 {words}",
        )
        for view, words in (
            (("part", 1), "is described by something else than key, offset and length"),
            ((1, 1, 2), "is described by something else than key, offset and length"),
            (("part", -1, 2), "is described by something else than whole numbers"),
            (("part", 1, True), "is described by something else than whole numbers"),
            (("part", 3, 2), "reaches beyond its 16 bytes"),
        )
    },
    "one view at two places, before 1.6": (
        lambda s: torch_legacy(
            whole(mapped(x=tensor((2,), view=pushed(("p", 0, 2))), y=tensor((2,), view=pushed(("p", 2, 2)))))
        ),
        2,
        "the view p of storage 0 is described in two ways",
    ),
    "storage of another length, before 1.6": (
        lambda s: torch_legacy(whole(mapped(x=tensor())), itemsize=2),
        2,
        "storage 0 declares 16 bytes, the file has 32 of it",
    ),
    "safetensors, key twice": (
        lambda s: safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + b'"b":0}', bytes(4)),
        2,
        "its header is damaged",
    ),
    "safetensors, key really twice": (
        lambda s: safetensors(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            bytes(2),
        ),
        2,
        "`a` stands in it twice",
    ),
    "safetensors, no tensors": (lambda s: safetensors({"__metadata__": {"a": "b"}}), 2, "it holds no tensors"),
    "safetensors, a list": (lambda s: safetensors(b"{}" + b" " * 8)[:8] + b"[1, 2, 3]", 2, "neither a torch zip"),
    "safetensors, no JSON": (lambda s: safetensors(b"{nonsense}"), 2, "its header is damaged"),
    "safetensors, no Unicode": (lambda s: safetensors(b'{"\xff\xfe": 1}'), 2, "its header is damaged"),
    "safetensors, metadata not text": (lambda s: safetensors({"__metadata__": {"a": 1}}), 2, "metadata are not text"),
    "safetensors, header too long": (lambda s: (10**6).to_bytes(8, "little") + b"{}", 2, "its header declares 1000000"),
    "safetensors, unknown dtype": (lambda s: _entry(dtype="F4"), 2, "has the dtype F4, which is not known"),
    "safetensors, no dtype": (lambda s: _entry(dtype=[]), 2, "which is not known"),
    "safetensors, negative shape": (lambda s: _entry(shape=[-1]), 2, "has no shape or no place"),
    "safetensors, fraction in shape": (lambda s: _entry(shape=[1.0]), 2, "has no shape or no place"),
    "safetensors, truth in shape": (lambda s: _entry(shape=[True]), 2, "has no shape or no place"),
    "safetensors, other shape": (lambda s: _entry(shape=[2]), 2, "reaches beyond its storage"),
    "safetensors, smaller shape": (lambda s: _entry(shape=[0]), 2, "`a` takes 4 bytes, expected 0"),
    "safetensors, huge shape": (lambda s: _entry(shape=[2**32, 2**32]), 2, "reaches beyond its storage"),
    "safetensors, 40 dimensions": (lambda s: _entry(shape=[1] * 40), 2, "a tensor has 40 dimensions"),
    "safetensors, begins late": (lambda s: _entry(data_offsets=[1, 5]), 2, "begins at byte 1, expected 0"),
    "safetensors, ends before it begins": (lambda s: _entry(data_offsets=[4, 0]), 2, "begins at byte 4, expected 0"),
    "safetensors, ends early": (lambda s: _entry() + b"x", 2, "it is truncated or damaged"),
    "safetensors, three offsets": (lambda s: _entry(data_offsets=[0, 2, 4]), 2, "has no shape or no place"),
    "safetensors, entry is text": (lambda s: safetensors({"a": "b"}), 2, "has no shape or no place"),
}


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _assert_refused(result: Result, code: int, message: str, folder: Path, left: set[str]) -> None:
    assert result.exit_code == code, (result.stderr, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], result.stderr
    assert lines[0].isprintable() and len(lines[0]) < 2100
    assert result.stdout == ""
    assert {path.name for path in folder.iterdir()} == left


#: What the user is told of some of these files; of the others nothing.
NOTES = {
    "under model": "has its weights under `model`",
    "of a parallel module": "keys begin with `module.`",
    "NaN, infinities and zeros": "numbers that are not finite",
}


def _assert_converted(source: Path, state: StateDict, name: str) -> None:
    """Convert to the new layout in both formats, and back; nothing but the keys may change."""
    for suffix in (".safetensors", ".pth"):
        there, back = (source.with_name(name + suffix) for name in ("there", "back"))
        result = _run("convert", source, there)
        assert result.exit_code == 0, (result.stderr, result.exception)
        assert NOTES[name] in " ".join(result.stderr.split()) if name in NOTES else not result.stderr, result.stderr
        assert _run("convert", there, back, "--to", "legacy").exit_code == 0
        loaded = checkpoint.read(back).to_torch()
        assert loaded.keys() == state.keys()
        for key, value in state.items():
            assert loaded[key].dtype == value.dtype and loaded[key].shape == value.shape, key
            assert loaded[key].numpy().tobytes() == value.contiguous().numpy().tobytes(), key


@pytest.mark.parametrize("name", SOUND)
def test_odd_files_are_converted(tmp_path: Path, make_state: Callable[..., StateDict], name: str) -> None:
    state = make_state()
    (tmp_path / "src").write_bytes(SOUND[name](state))
    assert _run("inspect", tmp_path / "src").exit_code == 0
    _assert_converted(tmp_path / "src", state, name)


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("save", [_saved, _old])
def test_odd_values_are_converted(
    tmp_path: Path, make_state: Callable[..., StateDict], name: str, save: Callable[[Any], bytes]
) -> None:
    state = CHANGED[name](make_state())
    (tmp_path / "src").write_bytes(save(state))
    _assert_converted(tmp_path / "src", state, name)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path: Path, make_state: Callable[..., StateDict], name: str) -> None:
    make, code, message = BAD[name]
    (tmp_path / "src").write_bytes(make(make_state()))
    for suffix in (".safetensors", ".pth"):
        _assert_refused(_run("convert", tmp_path / "src", tmp_path / f"dst{suffix}"), code, message, tmp_path, {"src"})
    seen = _run("inspect", tmp_path / "src")
    if code == 1:  # another model, or not quite this one: it can be described
        assert seen.exit_code == 0 and seen.stderr == "", (seen.stderr, seen.exception)
        assert all(line.isprintable() for line in seen.stdout.splitlines())
    else:
        _assert_refused(seen, code, message, tmp_path, {"src"})


@pytest.mark.parametrize("save", [_saved, _old, safetensors_bytes])
def test_cut_files_are_refused(
    tmp_path: Path, make_state: Callable[..., StateDict], save: Callable[[Any], bytes]
) -> None:
    data, source = save(make_state()), tmp_path / "src"
    places = [*range(1, 64, 7), *_RANDOM.sample(range(64, len(data) - 64), 60), *range(len(data) - 63, len(data), 6)]
    for place in (*places, len(data) - 1):
        source.write_bytes(data[:place])
        _assert_refused(
            _run("convert", source, tmp_path / "a.safetensors"), 2, "Cannot read the checkpoint", tmp_path, {"src"}
        )


@pytest.mark.parametrize("save", [_saved, _old, safetensors_bytes])
def test_flipped_bits_are_found(
    tmp_path: Path, make_state: Callable[..., StateDict], save: Callable[[Any], bytes]
) -> None:
    """Every bit of a zip file that means something is checked; the others are in headers, not in the numbers."""
    state, source, out = make_state(), tmp_path / "src", tmp_path / "out.safetensors"
    data = save(state)
    source.write_bytes(data)
    assert _run("convert", source, out).exit_code == 0
    sound = checkpoint.read(out).to_torch()
    header = len(data) if save is _saved else 20_000  # there are no check sums in the other formats
    for place in (*range(0, 64, 3), *_RANDOM.sample(range(64, header), 100), *range(header - 60, header, 3)):
        source.write_bytes(_flipped(data, place))
        result = _run("convert", source, out, "--force")
        if result.exit_code:
            assert result.exit_code in (1, 2) and len(result.stderr.splitlines()) == 1, (place, result.stderr)
        elif save is _saved:
            written = checkpoint.read(out).to_torch()
            assert all(torch.equal(written[key], sound[key]) for key in sound), place


def test_a_flipped_bit_in_the_numbers_is_always_found(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    state, source = make_state(), tmp_path / "src"
    data = _saved(state)
    for key in _RANDOM.sample(sorted(state), 40):
        raw = state[key].numpy().tobytes()
        place = data.index(raw) + _RANDOM.randrange(len(raw))
        source.write_bytes(_flipped(data, place))
        for args in (
            ["convert", source, tmp_path / "a.pth"],
            ["convert", source, tmp_path / "a.safetensors"],
            ["inspect", source],
        ):
            _assert_refused(_run(*args), 2, "is damaged (CRC-32", tmp_path, {"src"})


def test_views_of_storages_before_1_6(tmp_path: Path) -> None:
    """Files of torch 0.x have storages that are parts of others."""
    part = tensor((2,), numel=4, view=pushed(("part", 1, 2)))
    data = torch_legacy(whole(mapped(whole=tensor(), part=part, tail=tensor((1,), offset=3))))
    (tmp_path / "src").write_bytes(data)
    found = checkpoint.read(tmp_path / "src").state_dict
    assert {key: value.tolist() for key, value in found.items()} == {
        "whole": [1.0, 2.0, 3.0, 4.0],
        "part": [2.0, 3.0],
        "tail": [4.0],
    }


def test_text_of_python_2(tmp_path: Path) -> None:
    """Keys are strings of bytes there, and numbers of numpy too."""
    scalar = called(
        found("numpy.core.multiarray.scalar"), called(found("numpy.dtype"), b"U\x02f8"), b"U\x08\0\0\0\0\0\0\x04@"
    )
    content = b"}U\x01x" + tensor() + b"sU\x04meta}U\x04loss" + scalar + b"ss"
    content = content.replace(tensor() + b"s", tensor() + b"s", 1)
    (tmp_path / "src").write_bytes(
        torch_legacy(whole(b"}U\nstate_dict}U\x01x" + tensor() + b"ssU\x04meta}U\x04loss" + scalar + b"ss"))
    )
    read = checkpoint.read(tmp_path / "src")
    assert list(read.state_dict) == ["x"] and read.meta == {"loss": 2.5}


def test_special_files_and_names(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    left = {"pipe", "loop", "nowhere"}
    for source, message in [
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "loop", "does not exist"),
        (tmp_path / "nowhere", "gone`, which does not exist; get that file first"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "a\x1b[31m", r"a\x1b[31m` does not exist"),
    ]:
        for args in (["inspect", source], ["convert", source, tmp_path / "a.pth"]):
            _assert_refused(_run(*args), 2, message, tmp_path, left)


def test_names_that_are_no_text(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    """In processes of their own: a name of a file is any bytes there."""
    source = os.fsencode(tmp_path) + b"/\xff\xfe.pth"
    Path(os.fsdecode(source)).write_bytes(_saved(make_state()))
    environment = {**os.environ, "PYTHONPATH": str(REPO), "NO_COLOR": "1"}
    for args, code in [
        ([b"inspect", source], 0),
        ([b"convert", source, source + b".safetensors"], 0),
        ([b"convert", source, source + b".safetensors"], 2),
        ([b"inspect", source + b"x"], 2),
        ([b"inspect", source + b".safetensors", b"--json"], 0),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "converters", *args], capture_output=True, env=environment, check=False
        )
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == (1 if code else 0), done.stderr
        if b"--json" in args:
            json.loads(done.stdout)


def test_the_corpus_is_large() -> None:
    assert len(SOUND) + 2 * len(CHANGED) + len(BAD) > 100


def test_reading_never_needs_torch(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    state = make_state()
    for name, data in (("a.pth", _saved(state)), ("b.pth", _old(state)), ("c.safetensors", safetensors_bytes(state))):
        (tmp_path / name).write_bytes(data)
    code = """
import sys
from converters import checkpoint, detect, inspection
read = [checkpoint.read(path) for path in sys.argv[1:]]
for one in read:
    assert sum(len(chunk) for tensor in one.state_dict.values() for chunk in tensor.chunks()) > 10**6
print(sorted({"torch", "numpy", "pickle", "safetensors"} & set(sys.modules)))
for one in read:
    assert detect.detect(one.state_dict).variant == "tiny_r18"
    inspection.inspect_file(one.path)
print(sorted({"torch", "numpy", "pickle", "safetensors"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", code, *(str(path) for path in sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


def test_layouts_are_those_of_the_test() -> None:
    tensors = stored_layout("tiny_r18", side="legacy").tensors
    assert all(key in tensors for key in (_BIAS, _WEIGHT, _SQUARE)) and len(tensors[_SQUARE].shape) == 2
