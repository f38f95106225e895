"""Writing files that are whole or absent, alone or with their shards."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from converters.cli.console import ByteSize
from converters.cli.main import cli
from converters.errors import CheckpointError, OutputExistsError
from converters.formats import shards
from converters.formats.stored import StoredTensor
from converters.reading import checkpoint
from converters.writing import writer
from converters.writing.publication import Publication

StateDict = dict[str, Tensor]


def _write(
    path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], force: bool = False, size: int | None = None
) -> tuple[str, ...]:
    stored = {key: StoredTensor.from_torch(tensor) for key, tensor in state.items()}
    with Publication(path.parent, partial(writer.is_output, path), [path] if force else []) as opened:
        files = writer.write(opened, path, stored, meta, {}, size)
        opened.commit(last=path.with_name(files[-1].name))
    return tuple(file.name for file in files)


def _convert(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_written_files_read_back_and_repeat_their_bytes(tmp_path: Path, suffix: str) -> None:
    base = torch.arange(12.0)
    state = {"b": base.reshape(3, 4).t(), "a": torch.tensor(7), "c": base[:3], "d": torch.zeros(0, 2)}
    meta = {
        "variant": "v",
        "family": "f",
        "dataset_meta": {"classes": ["x", "y"]},
        "PALETTE": [[1, 2]],
        "layout": "new",
    }
    first, second = tmp_path / f"one{suffix}", tmp_path / f"another{suffix}"
    _write(first, state, meta)
    _write(second, dict(reversed(state.items())), dict(reversed(meta.items())))
    assert first.read_bytes() == second.read_bytes()
    found = checkpoint.read(first)
    assert {name: value for name, value in found.meta.items() if name != "format"} == meta
    assert all(torch.equal(found.to_torch()[key], state[key]) for key in state)
    assert all(tensor.is_contiguous() for tensor in found.state_dict.values())


def test_safetensors_are_aligned_to_their_items(tmp_path: Path) -> None:
    _write(tmp_path / "a.safetensors", {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2)}, {})
    data = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0 and header["b"]["data_offsets"] == [0, 8] and header["a"]["data_offsets"] == [8, 11]


def test_written_files_are_read_by_the_libraries(tmp_path: Path) -> None:
    state = {"x": torch.randn(3, 2), "n": torch.tensor(5), "h": torch.ones(3).half()}
    _write(tmp_path / "a.pth", state, {"family": "f"})
    _write(tmp_path / "a.safetensors", state, {"family": "f"})
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    assert loaded["meta"] == {"family": "f"} and list(loaded["state_dict"]) == ["h", "n", "x"]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"family": "f", "format": "pt"}
        assert all(torch.equal(file.get_tensor(key), state[key]) for key in state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, failing: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    for name in [failing, "link"] if failing == "replace" else [failing]:
        monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path / f"a{suffix}", {"x": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_what_the_disk_refuses_while_a_file_grows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is brought to the disk beside the writing, and the system tells such an error once."""

    def fail(number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer, "_SYNCED", 4)
    monkeypatch.setattr(os, "fdatasync", fail)
    path = tmp_path / "a.safetensors"
    with pytest.raises(OSError, match="Input/output error") as caught:
        _write(path, {"x": torch.ones(8)}, {})
    assert caught.value.filename == str(path) and list(tmp_path.iterdir()) == []


def test_what_torch_refuses_to_save_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no such type")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="no such type"):
        _write(tmp_path / "a.pth", {"x": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_has_no_place_for_what_stands_beside_weights(tmp_path: Path) -> None:
    parts = {"optimizer": {}, "message_hub": {}}
    with pytest.raises(
        CheckpointError, match="is a .safetensors, which has no place for message_hub, optimizer; write a .pth."
    ):
        writer.check_format(tmp_path / "a.safetensors", {}, parts, None)
    writer.check_format(tmp_path / "a.pth", {}, parts, None)


def test_a_temporary_file_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    """One of a process with the same number on another machine, on a disk that both have."""
    taken = tmp_path / f".a.pth.{os.getpid()}-0.ddq-convert.tmp"
    taken.write_text("of another machine")
    with Publication(tmp_path, lambda name: False, []) as opened:
        opened.open(tmp_path / "a.pth").write(b"mine")
        opened.commit(last=tmp_path / "a.pth")
    assert taken.read_text() == "of another machine" and (tmp_path / "a.pth").read_bytes() == b"mine"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    with pytest.raises(CheckpointError, match="Key `x` has dtype complex64, which is not written to .safetensors"):
        _write(path, {"x": torch.ones(1, dtype=torch.complex64)}, {}, force=True)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_destinations_are_checked_first(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("old")
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "b.pth.manifest.json").write_text("old")
    (tmp_path / "c-00001-of-00002.safetensors").write_text("old")
    (tmp_path / "d.safetensors.index.json").write_text("old")
    (tmp_path / "e.safetensors").symlink_to("nowhere")
    (tmp_path / "f.pth.manifest.json").mkdir()
    for name, error, message in [
        ("a.pth", OutputExistsError, "pass --force"),
        ("b.pth", OutputExistsError, "b.pth.manifest.json` exists already; pass --force"),
        ("c.safetensors", OutputExistsError, "c-00001-of-00002.safetensors` exists already; pass --force"),
        ("d.safetensors", OutputExistsError, "d.safetensors.index.json` exists already; pass --force"),
        ("e.safetensors", OutputExistsError, "pass --force"),
        ("a.bin", CheckpointError, "expected .pth or .safetensors"),
        ("no/a.pth", CheckpointError, "folder of the output .* does not exist"),
        ("folder.pth", CheckpointError, "is a folder"),
        ("f.pth", CheckpointError, "f.pth.manifest.json` is a folder"),
    ]:
        with pytest.raises(error, match=message):
            writer.check_destination(tmp_path / name, force=False)
    assert writer.check_destination(tmp_path / "c.pth", force=False) == []  # has no shards
    assert writer.check_destination(tmp_path / "b.pth", force=True) == [tmp_path / "b.pth.manifest.json"]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        _write(tmp_path / "a.pth", {"x": torch.ones(1)}, {})
    finally:
        os.umask(old)
    assert (tmp_path / "a.pth").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "links, failing_at, replaced",
    # what replaces nothing gets its name by a link
    [(True, 1, ["side", "main"]), (True, 2, ["side", "main"])]
    + [(False, at, ["side", "fresh", "main"]) for at in (1, 2, 3)],
)
def test_files_are_replaced_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, failing_at: int, replaced: list[str]
) -> None:
    names = ["main", "side", "fresh"]
    for name in names[:2]:
        (tmp_path / name).write_text(f"old {name}")
    calls, replace = [], os.replace

    def fail_once(source: str, target: Path) -> None:
        calls.append(Path(target).name)
        if len(calls) == failing_at:
            raise PermissionError(errno.EPERM, "not now", str(target))
        replace(source, target)

    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "replace", fail_once)
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def publish() -> None:
        with Publication(tmp_path, names.__contains__, list(tmp_path.iterdir())) as opened:
            for name in names:
                opened.open(tmp_path / name).write(f"new {name}".encode())
            opened.commit(last=tmp_path / "main")

    with pytest.raises(PermissionError):
        publish()
    assert calls == replaced[:failing_at]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"main": "old main", "side": "old side"}
    publish()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: f"new {name}" for name in names}


def test_a_name_that_was_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError), Publication(tmp_path, "main".__eq__, []) as opened:
        opened.open(tmp_path / "main").write(b"new")
        (tmp_path / "main").write_text("of somebody else")
        opened.commit(last=tmp_path / "main")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"main": "of somebody else"}


@pytest.mark.parametrize("name", ["main", "side"])
def test_a_name_that_is_taken_at_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def synced(*args: object) -> None:
        """Between the last look at the names and the first one that is given."""
        if not (tmp_path / name).exists():
            (tmp_path / name).write_text("of somebody else")

    monkeypatch.setattr(Publication, "_save", synced)
    with pytest.raises(OutputExistsError), Publication(tmp_path, ["main", "side"].__contains__, []) as opened:
        opened.open(tmp_path / "main").write(b"new")
        opened.open(tmp_path / "side").write(b"new")
        opened.commit(last=tmp_path / "main")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "of somebody else"}


def test_leftovers_of_killed_processes_are_removed_and_files_in_use_are_not(tmp_path: Path) -> None:
    left, shard, used, other, saved = (
        tmp_path / name
        for name in (
            ".main.safetensors.11-0.ddq-convert.tmp",
            ".main-00001-of-00002.safetensors.11-0.ddq-convert.tmp",
            ".main.safetensors.manifest.json.12-0.ddq-convert.tmp",
            ".mainly.safetensors.13-0.ddq-convert.tmp",
            ".main.safetensors.14-0.ddq-convert.old",
        )
    )
    for path in (left, shard, used, other, saved):
        path.write_text("half")
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(tmp_path / "main.pth", {"x": torch.ones(1)}, {})
        assert len(list(tmp_path.iterdir())) == 6
        _write(tmp_path / "main.safetensors", {"x": torch.ones(1)}, {})
        # nobody else has what was saved
        assert {path.name for path in tmp_path.iterdir()} == {
            "main.pth",
            "main.safetensors",
            used.name,
            other.name,
            saved.name,
        }
    _write(tmp_path / "main.safetensors", {"x": torch.ones(1)}, {}, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"main.pth", "main.safetensors", other.name}


def test_split_keeps_the_order_and_the_size() -> None:
    sizes = {"a": 4, "b": 4, "c": 9, "d": 1, "e": 0, "f": 8}
    assert shards.split(sizes, 8) == [["a", "b"], ["c"], ["d", "e"], ["f"]]
    assert shards.split(sizes, 100) == [list(sizes)]
    assert shards.split(sizes, 1) == [["a"], ["b"], ["c"], ["d", "e"], ["f"]]


def test_shards_and_their_index(tmp_path: Path) -> None:
    state = {name: torch.full((size,), float(size)) for name, size in (("a", 2), ("b", 5), ("c", 1))}
    names = _write(tmp_path / "n.safetensors", state, {"family": "f", "dataset_meta": {"classes": ["x"]}}, size=20)
    assert names == (
        "n-00001-of-00003.safetensors",
        "n-00002-of-00003.safetensors",
        "n-00003-of-00003.safetensors",
        "n.safetensors.index.json",
    )
    index = json.loads((tmp_path / names[-1]).read_text())
    assert index["weight_map"] == dict(zip("abc", names)) and index["metadata"]["total_size"] == 32
    assert all(torch.equal(load_file(tmp_path / name)[key], state[key]) for key, name in index["weight_map"].items())
    found = checkpoint.read(tmp_path / names[-1])
    assert found.meta["dataset_meta"] == {"classes": ["x"]}
    assert all(torch.equal(found.to_torch()[key], state[key]) for key in state)


def test_a_size_that_is_not_reached_gives_one_file(tmp_path: Path) -> None:
    assert _write(tmp_path / "n.safetensors", {"a": torch.ones(2)}, {}, size=8) == ("n.safetensors",)


def test_sharded_there_and_back(
    tmp_path: Path, legacy_file: Path, make_state: Callable[..., StateDict], assert_same: Callable[..., None]
) -> None:
    first = _convert(legacy_file, tmp_path / "n.safetensors", "--shard-size", "2MB")
    index = tmp_path / "n.safetensors.index.json"
    assert first.exit_code == 0 and first.stdout.endswith(f" -> {index} and 3 shards\n"), first.output
    assert max(path.stat().st_size for path in tmp_path.glob("n-*")) < 2_100_000
    assert _convert(index, tmp_path / "back.pth", "--to", "legacy").exit_code == 0
    assert_same(checkpoint.read(tmp_path / "back.pth").to_torch(), make_state())


def test_force_leaves_no_shards_of_an_earlier_run(tmp_path: Path, legacy_file: Path) -> None:
    dst = tmp_path / "n.safetensors"
    assert _convert(legacy_file, dst, "--shard-size", "1MB").exit_code == 0
    assert _convert(legacy_file, dst, "--shard-size", "2MB").exit_code == 2
    assert _convert(legacy_file, dst, "--shard-size", "2MB", "--force").exit_code == 0
    assert len(list(tmp_path.glob("n-*"))) == 3
    assert _convert(legacy_file, dst, "--force").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"legacy.pth", dst.name, f"{dst.name}.manifest.json"}


@pytest.mark.parametrize("dst", ["n.safetensors", "n-00001-of-00003.safetensors"])
def test_a_source_in_shards_is_never_replaced(tmp_path: Path, legacy_file: Path, dst: str) -> None:
    assert _convert(legacy_file, tmp_path / "n.safetensors", "--shard-size", "2MB").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = _convert(tmp_path / "n.safetensors.index.json", tmp_path / dst, "--to", "legacy", "--force")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "the source itself" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "size, message",
    [("0", "is not a size"), ("5 apples", "is not a size"), ("-1", "is not a size"), ("2MB", "is a .pth, which --shard-size")],
)
def test_sizes_and_formats_that_cannot_be_split(tmp_path: Path, legacy_file: Path, size: str, message: str) -> None:
    result = _convert(legacy_file, tmp_path / "n.pth", "--shard-size", size)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["legacy.pth"]


@pytest.mark.parametrize(
    "text, size", [("5GB", 5 * 10**9), ("64MiB", 2**26), ("1k", 1000), ("7", 7), ("2 TB", 2 * 10**12)]
)
def test_sizes(text: str, size: int) -> None:
    assert ByteSize().convert(text, None, None) == size


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is not an index of shards"),
        ("[]", "is not an index of shards"),
        ('{"weight_map": {}}', "lists no tensors"),
        ('{"weight_map": {"a": "../evil.safetensors"}}', "`../evil.safetensors`, which is not a file name"),
        ('{"weight_map": {"a": 3}}', "`3`, which is not a file name"),
        ('{"weight_map": {"a": ["b"]}}', "is not an index of shards"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors"),
        ('{"weight_map": {"a": "s.safetensors", "z": "s.safetensors"}}', "its shards lack `z`"),
        ('{"weight_map": {"b": "s.safetensors"}}', "its shards lack `b`"),
    ],
)
def test_bad_indexes(tmp_path: Path, content: str, message: str) -> None:
    _write(tmp_path / "s.safetensors", {"a": torch.ones(1)}, {})
    (tmp_path / "s.safetensors.index.json").write_text(content)
    index = tmp_path / "s.safetensors.index.json"
    for result in (CliRunner().invoke(cli, ["inspect", str(index)]), _convert(index, tmp_path / "x.pth")):
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and message in result.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_stripped_files_hold_weights_and_class_names_only(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    meta = {"dataset_meta": {"classes": ["a"]}, "epoch": 3}
    torch.save({"meta": meta, "state_dict": make_state(), "optimizer": {"state": {}}}, tmp_path / "a.pth")
    assert _convert(tmp_path / "a.pth", tmp_path / "s.pth", "--strip").exit_code == 0
    held = torch.load(tmp_path / "s.pth", weights_only=True)
    assert held.keys() == {"meta", "state_dict"} and held["meta"] == {"dataset_meta": {"classes": ["a"]}}
    # a file that needs no renaming can still be stripped
    assert _convert(tmp_path / "s.pth", tmp_path / "t.safetensors", "--strip").exit_code == 0
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert file.metadata() == {"dataset_meta": json.dumps({"classes": ["a"]}), "format": "pt"}
