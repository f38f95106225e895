"""Folders of results appear whole or not at all; what was there before stays until then."""

import json
import os

import pytest

from parity.cli import output
from parity.cli.output import check_run_folder, whole_files, whole_folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["beside", "inside"])
def out(request, tmp_path, monkeypatch):
    """Return a folder with an earlier run; once it is one that cannot be renamed, such as a mounted one."""
    if request.param == "inside":
        monkeypatch.setattr(output.os.path, "ismount", lambda path: str(path) == str(tmp_path / "out"))
    (tmp_path / "out" / "new").mkdir(parents=True)
    (tmp_path / "out" / "run.json").write_text("old")
    (tmp_path / "out" / "new" / "index.json").write_text("old")
    return tmp_path / "out"


OLD = {"run.json": "old", "new/index.json": "old"}


def test_the_old_one_stays_until_the_new_one_is_whole(out):
    with whole_folder(out) as folder:
        (folder / "run.json").write_text("new")
        assert {name: text for name, text in content(out).items() if not name.startswith(".")} == OLD
        assert os.stat(folder).st_dev == os.stat(out).st_dev
    assert content(out) == {"run.json": "new"} and [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
def test_after_an_error_or_an_interruption_the_old_one_is_there_and_nothing_beside_it(out, error):
    with pytest.raises(error), whole_folder(out) as folder:
        (folder / "run.json").write_text("new")
        raise error
    assert content(out) == OLD and [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_interruption_while_folders_change_places_undoes_it(out, monkeypatch, number):
    seen, rename = [], output.Path.rename

    def interrupted(path, target):
        seen.append(path)
        if len(seen) == number + 1:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(output.Path, "rename", interrupted)
    try:
        with whole_folder(out) as folder:
            (folder / "run.json").write_text("new")
    except KeyboardInterrupt:
        monkeypatch.setattr(output.Path, "rename", rename)
        assert content(out) == OLD
    else:
        assert content(out) == {"run.json": "new"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_new_folder_and_those_above_it_are_gone_after_an_error(tmp_path):
    with pytest.raises(ValueError), whole_folder(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("half")
        raise ValueError
    assert not list(tmp_path.iterdir())
    with whole_folder(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("whole")
    assert content(tmp_path) == {"a/b/x": "whole"}


def test_what_a_killed_run_left_is_removed_and_what_it_had_moved_away_is_put_back(tmp_path):
    for name in (".out.123.ddq-parity.tmp", ".out.123.ddq-parity.old", ".other.123.ddq-parity.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(name)
    with pytest.raises(ValueError), whole_folder(tmp_path / "out"):
        raise ValueError
    assert content(tmp_path) == {
        "out/run.json": ".out.123.ddq-parity.old",
        ".other.123.ddq-parity.tmp/run.json": ".other.123.ddq-parity.tmp",
    }


def test_what_another_process_is_making_is_left_alone(tmp_path, monkeypatch):
    with whole_folder(tmp_path / "out") as one:
        (one / "x").write_text("first")
        monkeypatch.setattr(output.os, "getpid", lambda: 1)
        with whole_folder(tmp_path / "out") as two:
            (two / "x").write_text("second")
        assert (one / "x").read_text() == "first"
    assert content(tmp_path) == {"out/x": "first"}


def test_job_files_name_the_final_folder(tmp_path):
    out = tmp_path / "Läufe 1"
    with whole_folder(out) as folder:
        (folder / "new.job.json").write_text(json.dumps(dict(trace=str(folder / "new"), other="x")))
    assert json.loads((out / "new.job.json").read_text()) == dict(trace=str(out / "new"), other="x")


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with whole_folder(tmp_path / "link") as folder:
        (folder / "x").write_text("new")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "real") == {"x": "new"}


def test_files_in_a_folder_are_replaced_together_and_others_stay(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileNotFoundError), whole_files(tmp_path, ("a.txt", "b.txt")) as folder:
        (folder / "a.txt").write_text("new")  # and no b
    assert content(tmp_path) == {"a.txt": "old", "mine.txt": "mine"}
    with whole_files(tmp_path, ("a.txt", "b.txt")) as folder:
        (folder / "a.txt").write_text("new")
        (folder / "b.txt").write_text("new")
    assert content(tmp_path) == {"a.txt": "new", "b.txt": "new", "mine.txt": "mine"}


def test_a_full_disk_is_told_whatever_it_made_fail(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 0})
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="No space left on device"), whole_folder(tmp_path / "out"):
        raise RuntimeError("a side ended without a report")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_hidden_leftover_counts_as_empty(tmp_path):
    (tmp_path / ".out.123.ddq-parity.tmp").mkdir()
    check_run_folder(tmp_path, force=False)


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(output.os, "access", lambda place, mode: False)
    with pytest.raises(PermissionError) as raised:
        output.check_writable(tmp_path / "deep" / "out")
    assert str(raised.value) == f"{tmp_path} cannot be written to; choose another place than {tmp_path / 'deep' / 'out'}."
