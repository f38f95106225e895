"""`ddq-parity zoo`: what it lists, refuses, prints and writes; a child of its own stands in for what tries a config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from parity.cli.main import cli
from parity.zoo import walking

CONFIG = Path(__file__).parents[1] / "migration" / "old_config.py"


@pytest.fixture
def repo(tmp_path) -> Path:
    """Return what looks like MMDetection 2.x, with two configs of one architecture."""
    folder = tmp_path / "repo"
    (folder / "mmdet").mkdir(parents=True)
    (folder / "mmdet" / "__init__.py").touch()
    (folder / "configs" / "pets").mkdir(parents=True)
    shutil.copy(CONFIG, folder / "configs" / "pets" / "faster_rcnn_r50.py")
    (folder / "configs" / "pets" / "faster_rcnn_r50_2x.py").write_text('_base_ = "faster_rcnn_r50.py"\n')
    return folder


@pytest.fixture
def tried(monkeypatch, tmp_path) -> Path:
    """Let a child of its own stand in for both sides; return the file that lists its calls."""
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setattr(walking, "_MODULE", "tests.zoo.child")
    monkeypatch.setenv("ZOO_CALLS", str(calls))
    return calls


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["zoo", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_list_names_one_config_of_each_architecture_or_all_or_those_that_fit(repo):
    given = ("--family", "mmdet2", "--legacy-repo", repo, "--list")
    name = "pets/faster_rcnn_r50.py  FasterRCNN RPNHead StandardRoIHead Shared2FCBBoxHead"
    assert call(*given)[:2] == (0, name + "\n")
    assert len(call(*given, "--all")[1].splitlines()) == 2
    assert call(*given, "--only", "*_2x")[1].startswith("pets/faster_rcnn_r50_2x.py")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--family", "mmdet_ddq"), "Family mmdet_ddq has no zoo of configs"),
        (("--family", "mmdet2"), "name it with --legacy-repo"),
        (("--family", "mmdet2", "--legacy-repo", "REPO", "--only", "none*"), "No config in"),
        (("--family", "mmdet2", "--legacy-repo", "REPO", "--check", "loss,train"), "is none of forward, loss, grad"),
        (("--family", "mmdet2", "--legacy-repo", "REPO"), "Pass --out FOLDER"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(repo, arguments, says):
    code, told, said = call(*(repo if word == "REPO" else word for word in arguments))
    assert (code, told) == (2, "") and says in said


def test_a_walk_prints_results_and_writes_report_and_table(repo, tried, tmp_path):
    given = ("--family", "mmdet2", "--legacy-repo", repo, "--out", tmp_path / "out")
    code, told, said = call(*given, "--check", "forward,loss", "--whole-width")
    assert code == 0 and told.splitlines()[-1].startswith("MATCH 1 of 1")
    assert "[1/1] pets/faster_rcnn_r50.py: " in said
    data = json.loads((tmp_path / "out" / "zoo.json").read_text())
    assert data["results"][0]["verdict"] == "MATCH" and "faster_rcnn_r50" in (tmp_path / "out" / "zoo.md").read_text()
    assert "done before" in call(*given, "--check", "forward,loss", "--whole-width")[2]
    assert len(tried.read_text().split()) == 1


def test_json_is_the_report_alone_and_quiet_is_one_line(repo, tried, tmp_path):
    given = ("--family", "mmdet2", "--legacy-repo", repo, "--out", tmp_path / "out")
    code, told, _ = call(*given, "--json")
    assert code == 0 and json.loads(told) == json.loads((tmp_path / "out" / "zoo.json").read_text())
    code, told, said = call(*given, "--quiet")
    assert (code, said, len(told.splitlines())) == (0, "", 1)
