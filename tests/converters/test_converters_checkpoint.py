"""Reading files that may be damaged or hostile, and writing files that are whole or absent."""

from __future__ import annotations

import copy
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from converters.errors import CheckpointError, MalformedError
from converters.formats import safetensors_file
from converters.formats.stored import SourceFile
from converters.reading import checkpoint


class HistoryBuffer:
    """Looks like mmengine's: a class that only the training code base has."""

    def __init__(self, size: int) -> None:
        self.values = list(range(size))


class ConfigDict(dict):
    """Looks like mmengine's: a dict subclass."""


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def _save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def _rewrite(path: Path, edit: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Copy a zip file, passing every record through `edit`."""
    with zipfile.ZipFile(path) as source:
        records = [(info.filename, source.read(info)) for info in source.infolist()]
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in records:
            target.writestr(name, edit(name, data))
    return path


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ],
)
def test_every_dtype_is_read_right(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    for path in (_save(tmp_path / "a.pth", {"state_dict": {"x": tensor}}), tmp_path / "a.safetensors"):
        if path.suffix == ".safetensors":
            save_file({"x": tensor}, path)
        found = checkpoint.read(path).state_dict["x"].to_torch()
        assert found.dtype == dtype and torch.equal(found, tensor)


def test_views_strides_and_shared_storages(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "shared_a": base,
        "shared_b": base,
        "view": base[4:10],
        "turned": base.reshape(4, 6).t(),
        "step": base[::5],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "param": torch.nn.Parameter(torch.ones(2)),
    }
    found = checkpoint.read(_save(tmp_path / "a.pth", state)).state_dict
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key].to_torch(), state[key]) for key in state)
    assert found["shared_a"].storage is found["shared_b"].storage


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"model": s},
        lambda s: s,
        OrderedDict,
        lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}},
    ],
)
def test_state_dict_is_found(tmp_path: Path, wrap: Callable[[dict[str, Any]], Any]) -> None:
    state = {"a.weight": torch.ones(2), "b": torch.zeros(1)}
    assert checkpoint.read(_save(tmp_path / "a.pth", wrap(state))).state_dict.keys() == state.keys()


def test_module_prefix_stays_unless_all_keys_have_it(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.pth", {"module.a": torch.ones(1), "b": torch.ones(1)})
    assert set(checkpoint.read(path).state_dict) == {"module.a", "b"}


def test_foreign_globals_are_made_inert(tmp_path: Path) -> None:
    path = _save(
        tmp_path / "a.pth",
        {
            "state_dict": {"x": torch.ones(2)},
            "meta": {"epoch": 3, "cfg": ConfigDict(a=1), "names": ("a", "b")},
            "message_hub": {"loss": HistoryBuffer(3)},
            "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
        },
    )
    found = checkpoint.read(path)
    assert [name.rpartition(".")[2] for name in found.foreign] == ["ConfigDict", "HistoryBuffer"]
    assert found.meta == {"epoch": 3, "cfg": {"a": 1}, "names": ("a", "b")}
    assert found.other_keys == ("message_hub", "optimizer")


def test_an_exploit_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    path = _save(tmp_path / "a.pth", {"state_dict": {"x": torch.ones(1)}, "bad": Exploit(f"touch {proof}")})
    found = checkpoint.read(path)
    assert not proof.exists()
    assert any(name.endswith(".system") for name in found.foreign)
    torch.load(path, weights_only=False)
    assert proof.exists(), "the exploit itself must work, or this test shows nothing"


def _truncated(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def _tensor_file(path: Path) -> Path:
    state = {"x": torch.arange(1000.0)}
    if path.suffix == ".pth":
        return _save(path, {"state_dict": state})
    save_file(state, path)
    return path


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    with pytest.raises(CheckpointError, match="Cannot read the checkpoint .*"):
        checkpoint.read(_truncated(_tensor_file(tmp_path / name), share))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"hello world, not weights", "neither a torch zip file nor a safetensors file"),
        (pickle.dumps({"state_dict": {}}, protocol=2), "a pickle, but not one that torch.save wrote"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.read(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "its top level is of type list, not a dict"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"epoch": 3}, "is not a state dict: `epoch` is of type int, not a plain tensor"),
        ({"state_dict": {"x": "text"}}, "`state_dict` is not a state dict: `x` is of type str, not a plain tensor"),
    ],
)
def test_contents_that_are_no_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(_save(tmp_path / "a.pth", content))


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="0 records named data.pkl"):
        checkpoint.read(path)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    path = _tensor_file(tmp_path / "a.pth")
    data = bytearray(path.read_bytes())
    at = bytes(data).find(torch.arange(1000.0).numpy().tobytes()[:400])
    data[at + 100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="record a/data/0 is damaged .*CRC"):
        checkpoint.read(path).check()


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    path = _rewrite(_save(tmp_path / "a.pth", {"x": torch.zeros(10**6)}), lambda _, data: data, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="its records are compressed"):
        checkpoint.read(path)


def test_overlapping_records_are_refused(tmp_path: Path) -> None:
    path = _tensor_file(tmp_path / "a.pth")
    with zipfile.ZipFile(path, "a") as archive:
        for index in range(5):
            twin = copy.copy(archive.getinfo("a/data/0"))
            twin.filename = f"a/data/{index + 1}"
            archive.filelist.append(twin)
        archive.writestr("a/last", "")  # makes zipfile write the directory anew
    with pytest.raises(CheckpointError, match="its record a/data/1 has another header"):
        checkpoint.read(path)


def _with_pickle(path: Path, data: bytes) -> Path:
    _tensor_file(path)
    return _rewrite(path, lambda name, old: data if name.endswith("data.pkl") else old)


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def _tensor_pickle(numel: int, offset: int, size: int, stride: int) -> bytes:
    """Write by hand: {'x': _rebuild_tensor_v2(storage 0 of `numel` floats, offset, (size,), (stride,))}."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + _number(numel)
    return (
        b"\x80\x02}X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"tQ"
        + _number(offset)
        + _number(size)
        + b"\x85"
        + _number(stride)
        + b"\x85\x89}tRs."
    )


def test_hand_written_pickle_is_read(tmp_path: Path) -> None:
    path = _with_pickle(tmp_path / "a.pth", _tensor_pickle(1000, 10, 5, 2))
    assert checkpoint.read(path).to_torch()["x"].tolist() == [10.0, 12.0, 14.0, 16.0, 18.0]


@pytest.mark.parametrize(
    "numel, offset, size, stride, message",
    [
        (10**9, 0, 10, 1, "storage 0 declares 4000000000 bytes, its record holds 4000"),
        (1000, 990, 20, 1, "reaches beyond its storage of 1000"),
        (1000, 0, 10**9, 0, "repeats its elements up to more bytes than the file has"),
        (1000, 0, 2, 5000, "reaches beyond its storage of 1000"),
        (1000, -1, 5, 1, "something else than a storage and whole numbers"),
        (1000, 5, 3, -2, "something else than a storage and whole numbers"),
    ],
)
def test_tensors_beyond_the_file_are_refused(
    tmp_path: Path, numel: int, offset: int, size: int, stride: int, message: str
) -> None:
    path = _with_pickle(tmp_path / "a.pth", _tensor_pickle(numel, offset, size, stride))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x80\x02}r\xff\xff\xff\x7f.", "holds no tensors"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x01\x00\x00\x00.", "it declares 4294967296 bytes, 1 are left"),
        (b"\x80\x02}", "its pickle is malformed"),
        (b"\x80\x02K\x01K\x02R.", "its pickle is malformed"),
        (b"garbage", "its pickle is malformed"),
    ],
)
def test_malformed_pickles_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(_with_pickle(tmp_path / "a.pth", data))


@pytest.mark.parametrize(
    ("name", "begin", "message"),
    [
        (
            "a.safetensors",
            (6_000_001).to_bytes(8, "little") + b"{",
            "its header has 6000001 bytes, expected at most 6000000",
        ),
        ("a.safetensors.index.json", b"{", "it is too large for an index of shards"),
    ],
)
def test_headers_that_would_mean_gigabytes_are_not_read(tmp_path: Path, name: str, begin: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(begin)
    os.truncate(tmp_path / name, 1 << 40)  # takes no space
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path / name)


def test_a_header_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes((9).to_bytes(8, "little") + b"[1, 2, 3]")
    with pytest.raises(MalformedError, match=r"its header is damaged \(it is not a JSON object\)"):
        safetensors_file.read(SourceFile(tmp_path / "a"))


def test_reading_does_not_need_the_optimizer(tmp_path: Path) -> None:
    """Only the state dict's storages are read: a damaged optimizer does not matter, nor does it take memory."""
    content = {"state_dict": {"x": torch.ones(3)}, "optimizer": {"m": torch.arange(1000.0)}}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = bytearray(buffer.getvalue())
    data[bytes(data).find(torch.arange(1000.0).numpy().tobytes()[:400]) + 50] ^= 1
    path = tmp_path / "a.pth"
    path.write_bytes(bytes(data))
    assert torch.equal(checkpoint.read(path).to_torch()["x"], torch.ones(3))


def test_safetensors_that_begin_with_the_byte_of_a_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    begins = []
    for length in range(1, 300, 8):
        save_file({"x" * length: torch.ones(2)}, path)
        begins.append(path.read_bytes()[0])
        assert checkpoint.read(path).format == "safetensors"
    assert 0x80 in begins
