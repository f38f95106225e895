"""Isolation names every place that computes something else by itself; bisect makes a script of the first."""

import json
import shutil
import subprocess
import sys

import pytest

from .conftest import PLANTED

TWO = ["encoder.layers.1.norms.0", "bbox_head.reg_branches.1.2"]


def places(result):
    return [place["where"] for place in json.loads(result.stdout)["isolated"]]


def isolated(tiny, *arguments, error="", sizes="64x96,96x64"):
    adapter = ("--new-adapter", PLANTED / f"{error}.py") if error else ()
    return tiny("--isolate", "--threads", "1", *adapter, *arguments, "--json", sizes=sizes)


def test_right_port_has_no_place(tiny):
    result = isolated(tiny)
    assert result.exit_code == 0 and places(result) == []


@pytest.mark.parametrize("check", ["loss", "grad"])
def test_beside_steps_of_a_training_the_rest_is_isolated(tiny, check):
    result = isolated(tiny, "--check", f"train,{check}", "--steps", "1", sizes="64x64")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["isolated"] == told["isolated_reasons"] == []


def test_two_errors_are_seen_apart_and_nothing_else_is_named(tiny, tmp_path):
    arguments = ("--isolate", "--threads", "1", "--new-adapter", PLANTED / "two_errors.py", "--out", tmp_path / "run")
    result = tiny(*arguments, sizes="64x96,96x64")
    assert result.exit_code == 1
    verdict = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [place["where"] for place in verdict["isolated"]] == TWO
    assert len(verdict["differing"]) > 1000 > sum(place["records"] for place in verdict["isolated"])
    first = verdict["isolated"][0]
    assert first["alone"]["max_abs"] == first["accumulated"]["max_abs"] > 0
    lines = result.stdout.splitlines()
    assert any(line.split()[:4] == ["stage", "records", "equal", "alone"] for line in lines)
    assert "isolated: 2 places compute something else by themselves" in lines
    assert max(map(len, lines[:-1])) <= 80


def test_under_derived_tolerance_two_errors_are_seen_apart(tiny):
    result = isolated(tiny, "--tolerance", "derived", error="two_errors", sizes="64x96")
    assert result.exit_code == 1 and places(result) == TWO


@pytest.mark.parametrize(
    ("error", "where"), [("swapped_branch", ["decoder", "bbox_head"]), ("ascending_dense", ["the detector"])]
)
def test_code_between_modules_is_named(tiny, error, where):
    assert places(isolated(tiny, error=error)) == where


@pytest.fixture
def kept(tiny, tmp_path):
    """Return a function that makes a run with an error and gives its folder."""

    def call(error, *arguments):
        adapter = ("--new-adapter", PLANTED / f"{error}.py") if error else ()
        tiny("--threads", "1", "--out", tmp_path / "run", *adapter, *arguments, sizes="64x96,96x64")
        return tmp_path / "run"

    return call


def ran(script, right=False):
    """Run a script, with the right port in place of the wrong one if asked; return its exit code and output."""
    if right:
        text = script.read_text()
        adapter = next(line for line in text.splitlines() if line.startswith("adapter"))
        mended = "import parity.adapters.ddq_port as port\nadapter = vars(port)"
        script = script.with_name("mended.py")
        script.write_text(text.replace(adapter, mended))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "where", "shown"),
    [
        ("doubled_gradient", ["bbox_head.reg_branches.1.2"], "bbox_head.reg_branches.1.2"),
        ("wrong_eps", ["decoder"], "decoder"),
        ("no_padding_mask", ["the detector"], 'adapter["predict"](model, batch)'),
        ("changed_state", ["level_embed"], ""),
    ],
)
def test_script_shows_the_error_and_no_more_once_it_is_mended(parity, kept, error, where, shown):
    result = parity("bisect", kept(error), "--json")
    assert result.exit_code == 1 and places(result) == where, result.output
    script = json.loads(result.stdout).get("script")
    if not shown:
        assert script is None
        return
    script = type(PLANTED)(script)
    assert shown in script.read_text() and len(script.read_text().splitlines()) < 50
    assert ran(script)[0] == 1
    code, output = ran(script, right=True)
    assert code == 0, output


def test_bisect_under_derived_tolerance_shows_in_float64_what_only_that_shows(parity, kept):
    result = parity("bisect", kept("wrong_norm_eps", "--tolerance", "derived", "--check", "forward"), "--json")
    script = type(PLANTED)(json.loads(result.stdout)["script"])
    assert "torch.float64" in script.read_text() and ran(script)[0] == 1


def test_bisect_of_a_match_says_so(parity, kept):
    result = parity("bisect", kept(""))
    assert result.exit_code == 0 and "nothing computes anything else" in result.stdout


def test_bisect_replaces_nothing_without_force_and_works_in_a_folder_that_was_moved(parity, kept, tmp_path):
    folder = shutil.move(kept("wrong_norm_eps", "--check", "forward"), tmp_path / "moved")
    assert parity("bisect", folder, "-q").exit_code == 1
    again = parity("bisect", folder)
    assert again.exit_code == 2 and "pass --force" in again.stderr
    assert parity("bisect", folder, "--force", "-q").exit_code == 1
    elsewhere = parity("bisect", folder, "--out", folder)
    assert elsewhere.exit_code == 2 and "holds no reproduce.py" in elsewhere.stderr


@pytest.mark.parametrize("name", ["none", "empty", "golden check"])
def test_bisect_of_something_else_is_one_line(parity, tmp_path, name):
    folder = tmp_path / "folder"
    if name != "none":
        folder.mkdir()
    if name == "golden check":
        (folder / "run.json").write_text("{}")
    result = parity("bisect", folder)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "ddq-parity run" in result.stderr
