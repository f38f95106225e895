"""Kills, full disks, read-only folders, sources that change: a whole output or none, one line, no harm done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from benchmarks import crashes
from converters import api
from converters.cli.main import cli
from converters.reading import checkpoint
from converters.writing import hashing, writer

REPO = Path(__file__).resolve().parents[2]
StateDict = dict[str, Tensor]
# Kills the process when it is about to do what must not be half done, for the KILL_AT-th time.
KILLED_AT = """
import os, signal, sys
from converters.cli.main import main
calls = 0
def counted(function):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper
for name in ("fsync", "link", "rename", "replace", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
main()
"""


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "NO_COLOR": "1", **variables}


@pytest.fixture
def source(tmp_path: Path, legacy_file: Path) -> Path:
    """Return the legacy checkpoint, in a folder of its own."""
    (tmp_path / "src").mkdir()
    (tmp_path / "out").mkdir()
    return legacy_file.rename(tmp_path / "src" / legacy_file.name)


@pytest.mark.parametrize("kills, options", [(5, ()), (3, ("--shard-size", "2MB"))])
def test_killed_at_random_moments(tmp_path: Path, source: Path, kills: int, options: tuple[str, ...]) -> None:
    tally = crashes.kill(source, tmp_path / "out" / "n.safetensors", options, kills, seed=0)
    assert tally.faults == () and tally.found.total() == kills


@pytest.mark.parametrize("old, options", [(False, ()), (True, ("--shard-size", "4MB"))])
def test_killed_at_every_step_of_publishing(tmp_path: Path, source: Path, options: tuple[str, ...], old: bool) -> None:
    folder = tmp_path / "out"
    final = "n.safetensors.index.json" if options else "n.safetensors"
    command = ["convert", str(source), str(folder / "n.safetensors"), *options]
    new = _contents(folder, _run(*command))
    before = _contents(folder, _run(*command, "--to", "legacy")) if old else {}
    ends = []
    while not ends or ends[-1] != 0:
        for name, data in before.items():
            (folder / name).write_bytes(data)
        forced = ["--force"] if old else []
        ends.append(_killed(len(ends) + 1, *command, *forced))
        visible = {path.name: path.read_bytes() for path in folder.iterdir() if not _is_temporary(path)}
        assert all(data in (before.get(name), new.get(name)) for name, data in visible.items())
        if visible.get(final) == new[final]:
            assert new.items() <= visible.items(), "the last file has its name, so all must have theirs"
        # what is left does not hinder the next run, which needs no --force unless there is an output
        again = _run(*command, *(["--force"] if final in visible else []))
        assert _contents(folder, again) == new
    assert set(ends[:-1]) == {-signal.SIGKILL} and len(ends) > 5


def _contents(folder: Path, done: Result) -> dict[str, bytes]:
    """Return what a run has written, by name, and empty its folder."""
    assert done.exit_code == 0, done.stderr
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    return found


def _killed(at: int, *arguments: str) -> int:
    command = [sys.executable, "-c", KILLED_AT, *arguments]
    return subprocess.run(command, env=_environment(KILL_AT=str(at)), capture_output=True).returncode


def _is_temporary(path: Path) -> bool:
    return crashes.TEMPORARY.fullmatch(path.name) is not None


@pytest.mark.parametrize("space", ["100k", "1m", "4m", "4800k"])
@pytest.mark.parametrize("name", ["n.pth", "n.safetensors", "split"])
def test_a_full_disk(tmp_path: Path, source: Path, space: str, name: str) -> None:
    options = ["--shard-size", "1MB"] if name == "split" else []
    path = tmp_path / "out" / ("n.safetensors" if name == "split" else name)
    done = _mounted(tmp_path / "out", f"size={space}", ["convert", source, path, *options])
    error, listing = done.stderr.splitlines(), done.stdout.splitlines()
    assert len(error) == 1 and error[0].endswith("No space left on device.") and str(tmp_path / "out" / "n") in error[0]
    assert listing == ["ends 2"], "the folder must be empty"


def test_a_disk_that_is_large_enough(tmp_path: Path, source: Path) -> None:
    done = _mounted(tmp_path / "out", "size=20m", ["convert", source, tmp_path / "out" / "n.safetensors", "-q"])
    assert done.stdout.splitlines() == ["ends 0", "n.safetensors", "n.safetensors.manifest.json"], done.stderr


@pytest.mark.parametrize("name", ["n.pth", "n.safetensors"])
def test_a_read_only_file_system(tmp_path: Path, source: Path, name: str) -> None:
    done = _mounted(tmp_path / "out", "ro", ["convert", source, tmp_path / "out" / name])
    assert done.stderr == f"error: Cannot read or write `{tmp_path / 'out' / name}`: Read-only file system.\n"
    assert done.stdout.splitlines() == ["ends 2"]


def _mounted(folder: Path, options: str, arguments: list[object]) -> subprocess.CompletedProcess[str]:
    """Run the converter where a small file system is mounted at `folder`; print how it ended and what is there then."""
    prefix = ["unshare", "--mount", "--map-root-user"]
    mount = 'mount -t tmpfs -o "$1" none "$2"'
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "sh", "-c", mount, "sh", "size=1m", str(folder)], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    script = f'{mount}; folder="$2"; shift 2; "$@"; echo "ends $?"; ls -A "$folder"'
    command = [sys.executable, "-m", "converters", *map(str, arguments)]
    return subprocess.run(
        [*prefix, "sh", "-c", script, "sh", options, str(folder), *command],
        env=_environment(),
        capture_output=True,
        text=True,
    )


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"other bytes")


def _exchange(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


@pytest.mark.parametrize("change", [_append, _cut, _overwrite, _exchange])
@pytest.mark.parametrize(
    "module, function", [(checkpoint, "read"), (hashing, "digests"), (writer, "write"), (writer, "write_side")]
)
@pytest.mark.parametrize("name", ["n.pth", "n.safetensors"])
def test_a_source_that_changes_while_it_is_read(
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    module: object,
    function: str,
    name: str,
) -> None:
    step = getattr(module, function)

    def changed_before(*args: object) -> object:
        change(source)
        return step(*args)

    monkeypatch.setattr(module, function, changed_before)
    result = _run("convert", source, tmp_path / "out" / name)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and str(source) in result.stderr
    assert _names(tmp_path / "out") == set()


@pytest.mark.parametrize("number", range(12))
def test_a_flipped_bit_in_the_source_is_refused_or_without_consequence(
    tmp_path: Path, source: Path, assert_same: Callable[..., None], number: int
) -> None:
    whole = source.read_bytes()
    original = api.plan(source).state_dict
    data = bytearray(whole)
    data[number * (len(data) - 1) // 11] ^= 1 << number % 8
    source.write_bytes(bytes(data))
    result = _run("convert", source, tmp_path / "out" / "n.safetensors")
    if result.exit_code:
        assert len(result.stderr.splitlines()) == 1 and _names(tmp_path / "out") == set()
    else:
        source.write_bytes(whole)
        assert_same(
            checkpoint.read(tmp_path / "out" / "n.safetensors").to_torch(),
            {key: tensor.to_torch() for key, tensor in original.items()},
        )
    assert source.read_bytes() in (whole, bytes(data))


def test_a_damaged_source_that_was_converted_itself_is_told_by_its_manifest(tmp_path: Path, source: Path) -> None:
    """A .safetensors has no check sums of its own."""
    new = tmp_path / "src" / "n.safetensors"
    assert _run("convert", source, new).exit_code == 0
    data = bytearray(new.read_bytes())
    data[-5] ^= 4
    new.write_bytes(bytes(data))
    result = _run("convert", new, tmp_path / "out" / "back.pth", "--to", "legacy")
    assert result.exit_code == 2 and "own manifest recorded: `" in result.stderr
    assert _names(tmp_path / "out") == set()


def test_a_source_with_a_manifest_of_another_file_is_refused(
    tmp_path: Path, source: Path, make_state: Callable[..., StateDict]
) -> None:
    new = tmp_path / "src" / "n.pth"
    assert _run("convert", source, new).exit_code == 0
    content = torch.load(new, weights_only=True)
    content["meta"]["ddq_manifest"] = content["meta"]["ddq_manifest"].replace("legacy.pth", "other.pth")
    torch.save(content, new)
    result = _run("convert", new, tmp_path / "out" / "back.pth", "--to", "legacy")
    assert result.exit_code == 2 and "Cannot trust the manifest inside the source" in result.stderr


def test_a_terminated_run_cleans_up(tmp_path: Path, source: Path) -> None:
    script = """
import os, signal
from converters import writer
from converters.cli.main import main
write_side = writer.write_side
def terminated(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    write_side(*args)
writer.write_side = terminated
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", str(source), str(tmp_path / "out" / "n.safetensors")],
        env=_environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert _names(tmp_path / "out") == set()
