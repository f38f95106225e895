"""Tensors that are still in their file."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import zlib
from pathlib import Path

import pytest
import torch

from converters.carrying.casting import CastStorage
from converters.errors import CheckpointError, MalformedError
from converters.formats import stored
from converters.formats.stored import ITEM_SIZES, SourceFile, Storage, StoredTensor, check_all
from converters.rules.kinds import Concat
from converters.rules.values import applied


def _random(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return random bytes as a tensor; as floats they hold NaN and infinities, too."""
    generator = torch.Generator().manual_seed(3)
    count = int(torch.tensor(shape).prod()) * ITEM_SIZES[dtype]
    raw = torch.randint(0, 2 if dtype == "bool" else 256, (count,), generator=generator, dtype=torch.uint8)
    return raw.view(getattr(torch, dtype)).reshape(shape)


def _raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _in_file(path: Path, data: bytes, crc: int | None = None) -> Storage:
    path.write_bytes(b"before" + data + b"after")
    return Storage("s", len(data), SourceFile(path), 6, zlib.crc32(data) if crc is None else crc)


@pytest.mark.parametrize("dtype", ITEM_SIZES)
def test_dtypes_there_and_back(dtype: str) -> None:
    tensor = _random(dtype, (3, 4))
    there = StoredTensor.from_torch(tensor)
    assert (there.dtype, there.shape, there.numel(), there.nbytes) == (dtype, (3, 4), 12, 12 * ITEM_SIZES[dtype])
    assert there.data() == _raw(tensor)
    back = there.to_torch()
    assert back.dtype == tensor.dtype and back.shape == tensor.shape and _raw(back) == _raw(tensor)


def test_one_element_is_copied_whatever_its_stride() -> None:
    assert StoredTensor.from_torch(torch.arange(5.0).reshape(1, 5)[:, 4]).to_torch().tolist() == [4.0]


@pytest.mark.parametrize("dtype", [dtype for dtype in ITEM_SIZES if not dtype.startswith("float8")])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2), (0,), (2, 0), (0, 2)])
def test_numbers_are_read_out(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(12)[: int(torch.tensor(shape).prod())].to(getattr(torch, dtype)).reshape(shape)
    expected = [] if 0 in shape else tensor.to(torch.complex128).tolist() if tensor.is_complex() else tensor.tolist()
    assert StoredTensor.from_torch(tensor).tolist() == expected


def test_numbers_of_eight_bits_are_not_read_out() -> None:
    with pytest.raises(CheckpointError, match="Numbers of dtype float8_e5m2 are not read out"):
        StoredTensor.of("float8_e5m2", (1,), b"\0").tolist()


@pytest.mark.parametrize("dtype", ["float32", "bool", "bfloat16", "int64", "complex128"])
@pytest.mark.parametrize(
    "shape, stride, offset",
    [
        ((4, 5), (5, 1), 0),
        ((4, 5), (5, 1), 3),
        ((5, 4), (1, 5), 0),
        ((4,), (7,), 2),
        ((3, 2), (0, 1), 1),
        ((3,), (0,), 5),
        ((2, 3, 4), (1, 8, 2), 0),
        ((1, 6), (100, 1), 4),
        ((6, 1), (1, 77), 4),
        ((2, 2), (1, 1), 0),
        ((0, 3), (9, 9), 0),
        ((), (), 11),
    ],
)
def test_strides(dtype: str, shape: tuple[int, ...], stride: tuple[int, ...], offset: int, tmp_path: Path) -> None:
    flat = _random(dtype, (40,))
    expected = _raw(torch.as_strided(flat, shape, stride, offset))
    tensor = StoredTensor(dtype, shape, _in_file(tmp_path / "a", _raw(flat)), offset, stride)
    assert tensor.data() == expected
    for size in (1, 7, 64, 1 << 20):
        chunks = [bytes(chunk) for chunk in tensor.chunks(size)]
        assert b"".join(chunks) == expected and all(len(chunk) == size for chunk in chunks[:-1])
    assert tensor.sha256() == hashlib.sha256(expected).hexdigest()
    assert _raw(tensor.to_torch()) == expected


@pytest.mark.parametrize(
    "dtype, shape, offset, stride, message",
    [
        ("float31", (2,), 0, (1,), "unknown dtype float31"),
        ("float32", (2,), -1, (1,), "whole numbers"),
        ("float32", (-2,), 0, (1,), "whole numbers"),
        ("float32", (2,), 0, (-1,), "whole numbers"),
        ("float32", (2.0,), 0, (1,), "whole numbers"),
        ("float32", (True,), 0, (1,), "whole numbers"),
        ("float32", (2**62,), 0, (0,), "whole numbers"),
        ("float32", (2,), 0, (1, 1), "1 dimensions has 2 strides"),
        ("float32", (1,) * 33, 0, (1,) * 33, "33 dimensions"),
        ("float32", (5,), 0, (1,), "reaches beyond its storage of 4 elements"),
        ("float32", (4,), 1, (1,), "reaches beyond its storage"),
        ("float32", (2,), 0, (4,), "reaches beyond its storage"),
        ("float32", (0,), 5, (1,), "reaches beyond its storage"),
        ("float64", (4,), 0, (1,), "reaches beyond its storage of 2 elements"),
        ("float32", (2**40,), 0, (0,), "repeats its elements"),
        ("float32", (2**61, 2**61), 0, (0, 0), "repeats its elements"),
    ],
)
def test_what_is_no_tensor(
    dtype: str, shape: tuple[int, ...], offset: int, stride: tuple[int, ...], message: str
) -> None:
    with pytest.raises(MalformedError, match=message):
        StoredTensor(dtype, shape, Storage.of(bytes(16)), offset, stride, most_bytes=1000)


def test_damage_is_found_however_the_storage_is_read(tmp_path: Path) -> None:
    for number, (shape, offset) in enumerate([((8,), 0), ((2,), 3)]):
        for read in (
            lambda tensor: tensor.data(),
            lambda tensor: list(tensor.chunks(4)),
            lambda tensor: tensor.sha256(),
            lambda tensor: tensor.to_torch(),
            lambda tensor: tensor.storage.check(),
        ):
            path = tmp_path / f"{number}"
            tensor = StoredTensor("float32", shape, _in_file(path, bytes(32), crc=1), offset)
            for _ in range(2):  # it stays damaged
                with pytest.raises(
                    CheckpointError, match=f"`{path}`: record s is damaged .CRC-32 190a55ad, expected 0+1"
                ):
                    read(tensor)


def test_pieces_come_before_the_damage_is_known(tmp_path: Path) -> None:
    """A whole storage is verified on the way, so that it is read once; whoever writes has to wait for the end."""
    chunks = StoredTensor("uint8", (32,), _in_file(tmp_path / "a", bytes(32), crc=1)).chunks(16)
    assert [next(chunks), next(chunks)] == [bytes(16), bytes(16)]
    with pytest.raises(CheckpointError, match="is damaged"):
        next(chunks)


def test_a_storage_is_verified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = _in_file(tmp_path / "a", bytes(100))
    summed: list[int] = []
    monkeypatch.setattr(stored.zlib, "crc32", lambda data, value=0: summed.append(len(data)) or _CRC32(data, value))
    StoredTensor("uint8", (10,), storage, 5).data()
    assert summed == [100]
    StoredTensor("uint8", (10,), storage, 7).data()
    list(StoredTensor("uint8", (100,), storage).chunks(10))
    assert summed == [100]


_CRC32 = zlib.crc32


def test_a_storage_without_a_sum_is_not_verified(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8))
    storage = Storage("s", 8, SourceFile(tmp_path / "a"), 0, None)
    storage.check()
    assert storage.read(0, 8) == bytes(8)


def test_the_first_of_several_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _in_file(path, bytes(1000))
    source = SourceFile(path)
    storages = [
        Storage(str(n), 10, source, 6 + 10 * n, 1 if n in (31, 33, 80) else zlib.crc32(bytes(10))) for n in range(90)
    ]
    with pytest.raises(CheckpointError, match="record 31 is damaged"):
        check_all(storages)
    check_all([])


def test_a_system_that_reads_less_than_asked_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = StoredTensor("uint8", (32,), _in_file(tmp_path / "a", bytes(range(32))))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, length, at: pread(handle, min(length, 7), at))
    assert tensor.data() == bytes(range(32))


def test_damage_of_what_elements_are_made_of_is_found(tmp_path: Path) -> None:
    """Tensors that are put together of others, or rounded, have no sum of their own."""
    sound = StoredTensor("float32", (4,), _in_file(tmp_path / "a", bytes(16)))
    damaged = StoredTensor("float32", (4,), _in_file(tmp_path / "b", bytes(16), crc=1))
    for first, second in ((sound, sound), (sound, damaged), (damaged, sound)):
        (joined,) = applied(Concat(("a", "b"), "c"), [first, second])
        for storage in (joined.storage, CastStorage(second, "float16")):
            if damaged in (second, *([first] if storage is joined.storage else [])):
                with pytest.raises(CheckpointError, match="record s is damaged"):
                    storage.check()
            else:
                storage.check()


def test_a_tensor_tells_what_it_is_and_not_its_numbers(tmp_path: Path) -> None:
    assert (
        repr(StoredTensor("uint8", (2, 16), _in_file(tmp_path / "a", bytes(32)))) == "StoredTensor(uint8, [2, 16], s)"
    )


def test_a_file_that_is_cut_meanwhile(tmp_path: Path) -> None:
    tensor = StoredTensor("uint8", (32,), _in_file(tmp_path / "a", bytes(32)))
    os.truncate(tmp_path / "a", 20)
    with pytest.raises(CheckpointError, match="it ends at byte 20, expected 38 or more"):
        tensor.data()


def test_a_file_that_is_replaced_meanwhile(tmp_path: Path) -> None:
    tensor = StoredTensor("uint8", (32,), _in_file(tmp_path / "a", b"x" * 32))
    (tmp_path / "b").write_bytes(bytes(100))
    os.replace(tmp_path / "b", tmp_path / "a")
    assert tensor.data() == b"x" * 32


def test_a_file_is_closed_when_nobody_needs_it(tmp_path: Path) -> None:
    def handles() -> int:
        names = (f"/proc/self/fd/{handle}" for handle in os.listdir("/proc/self/fd"))
        return sum(os.readlink(name).startswith(str(tmp_path)) for name in names if os.path.lexists(name))

    tensors = [StoredTensor("uint8", (32,), _in_file(tmp_path / str(n), bytes(32))) for n in range(20)]
    assert handles() == 20
    del tensors
    gc.collect()
    assert handles() == 0


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    tensor = StoredTensor("uint8", (len(data),), _in_file(tmp_path / "a", data))
    found: list[str] = []
    workers = [threading.Thread(target=lambda: found.append(tensor.sha256())) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(found) == {hashlib.sha256(data).hexdigest()} and len(found) == 6


def test_conjugated_and_negated_tensors_are_taken_by_value() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    assert StoredTensor.from_torch(tensor.conj()).tolist() == [1 - 2j, 3 + 4j]
    assert StoredTensor.from_torch(tensor.conj().imag).tolist() == [-2.0, 4.0]


def test_a_dtype_that_torch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "float8_e8m0fnu")
    with pytest.raises(CheckpointError, match="has no dtype float8_e8m0fnu; use a newer one"):
        StoredTensor.of("float8_e8m0fnu", (1,), b"\0").to_torch()
