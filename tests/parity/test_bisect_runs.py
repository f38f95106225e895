"""``bisect`` isolates in a kept run and makes a script of the first error."""

import json
import shutil
from pathlib import Path

import pytest

from tests.models import NEW_ADAPTER

from ..warm.execute import python
from .test_isolation import places


@pytest.fixture
def kept(tiny, tmp_path, planted):
    """Return a function that makes a run with an error and gives its folder."""

    def call(error, *arguments):
        adapter = ("--new-adapter", planted(error)) if error else ()
        checks = () if "--check" in arguments else ("--check", "forward,grad")
        tiny("--threads", "1", "--out", tmp_path / "run", *checks, *adapter, *arguments, sizes="64x96,96x64")
        return tmp_path / "run"

    return call


def ran(script, right=False):
    """Run a script, with the right port in place of the wrong one if asked; return its exit code and output."""
    if right:
        text = script.read_text()
        adapter = next(line for line in text.splitlines() if line.startswith("adapter"))
        mended = f"adapter = load_adapter({str(NEW_ADAPTER)!r})"
        script = script.with_name("mended.py")
        script.write_text(text.replace(adapter, mended))
    done = python(script)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "where", "shown"),
    [
        ("gradient_doubled", ["encoder.layers.1.ffn"], "encoder.layers.1.ffn"),
        ("eps_inverse_sigmoid", ["decoder"], "decoder"),
        ("no_padding_mask_in_decoder", ["the detector"], "adapter.predict(model, batch)"),
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
    script = Path(script)
    assert shown in script.read_text() and len(script.read_text().splitlines()) < 50
    assert ran(script)[0] == 1
    code, output = ran(script, right=True)
    assert code == 0, output


def test_bisect_under_derived_tolerance_shows_in_float64_what_only_that_shows(parity, kept):
    result = parity("bisect", kept("eps_layer_norm", "--tolerance", "derived", "--check", "forward"), "--json")
    script = Path(json.loads(result.stdout)["script"])
    assert "torch.float64" in script.read_text() and ran(script)[0] == 1


def test_bisect_of_a_match_says_so(parity, kept):
    result = parity("bisect", kept(""))
    assert result.exit_code == 0 and "no module differs" in result.stdout


def test_bisect_replaces_nothing_without_force_and_works_in_a_folder_that_was_moved(parity, kept, tmp_path):
    folder = shutil.move(kept("eps_layer_norm", "--check", "forward"), tmp_path / "moved")
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
