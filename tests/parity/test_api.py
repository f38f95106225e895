"""The Python API takes what the command line takes, returns verdicts and raises errors; its examples run."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

import parity
from converters.rules.ports import port
from parity import api
from parity.cli.main import cli

ROOT = Path(__file__).parents[2]
NOT_IN_PYTHON = {"json", "quiet"}
_EXAMPLE = re.compile(r"^### ([^\n]+)$(?:(?!^#).)*?^```python$(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = _EXAMPLE.findall((ROOT / "docs" / "scripting.md").read_text())
WHAT = ("mmdet_ddq", "tiny_4scale")


#: Functions that are commands of another name.
COMMANDS = {"capture_golden": "capture", "check_golden": "check"}


@pytest.mark.parametrize("name", ["run", "compare", "capture_golden", "check_golden"])
def test_arguments_and_defaults_are_those_of_the_command(name):
    params = {
        param.name: inspect.Parameter.empty if param.required else _default(param)
        for param in cli.commands[COMMANDS.get(name, name)].params
        if param.name not in NOT_IN_PYTHON
    }
    arguments = inspect.signature(getattr(api, name)).parameters
    assert {key: value.default for key, value in arguments.items() if key != "progress"} == params


def _default(param):
    """Return the default of an option; click marks an option without one by a value of its own."""
    if param.multiple:
        return ()
    default = param.get_default(click.Context(click.Command("x")))
    return default if isinstance(default, str | int | float) else None


def test_importing_parity_loads_neither_torch_nor_the_command_line():
    code = "import parity, sys; dir(parity); print({'torch', 'numpy', 'click', 'parity.api'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"


def test_every_public_name_can_be_used():
    assert [name for name in parity.__all__ if getattr(parity, name) is not getattr(api, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        parity.rum  # noqa: B018


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "says"),
    [
        ("run", ("mmdet_dqd", "tiny_4scale"), {}, "FamilyError", "There is no family `mmdet_dqd`"),
        ("run", ("mmdet_ddq",), {}, "FamilyError", "has several variants; pass --variant"),
        ("run", WHAT, dict(exclude=["decoder*"]), "SettingsError", "give a --reason with each --exclude"),
        ("run", WHAT, dict(exclude="decoder*", reason=("a", "b")), "SettingsError", "found 1 pattern and 2 reasons"),
        ("run", WHAT, dict(check=["loss", "los"]), "SettingsError", "'los' is not a check"),
        ("run", WHAT, dict(steps=3), "SettingsError", "--steps needs check train"),
        ("run", WHAT, dict(size=[(3, 64)]), "SettingsError", "'3x64' is not between 32 and 8192 pixels"),
        ("run", WHAT, dict(rtol=1), "SettingsError", "--rtol goes with --tolerance fixed"),
        ("run", ("ddq_detr", "tiny_4scale"), {}, "RepoError", "needs --legacy-repo"),
        ("run", WHAT, dict(checkpoint="none.pth"), "FileNotFoundError", "none.pth does not exist"),
        ("compare", ("none", "none"), {}, "FileNotFoundError", "none does not exist"),
        ("check_golden", ("none.npz",), {}, "FileNotFoundError", "none.npz does not exist"),
        ("capture_golden", ("none/x.npz", *WHAT), {}, "FileNotFoundError", "none is not a folder"),
    ],
    ids=str,
)
def test_bad_input_is_an_exception_that_says_what_is_wrong(name, arguments, options, error, says):
    with pytest.raises(parity.INPUT_ERRORS) as raised:
        getattr(parity, name)(*arguments, **options)
    assert type(raised.value).__name__ == error and says in str(raised.value)


def test_a_side_that_crashes_is_an_exception_with_the_end_of_its_traceback(tmp_path):
    adapter = tmp_path / "crashing.py"
    adapter.write_text(
        "from parity.adapters.ddq_port import *\n\ndef predict(model, batch):\n    raise ValueError('no such luck')\n"
    )
    with pytest.raises(parity.SideError, match="no such luck") as raised:
        parity.run("mmdet_ddq", "tiny_4scale", check="forward", size="64x64", threads=1, new_adapter=adapter)
    assert "ValueError: no such luck" in raised.value.details


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, capsys):
    tensors = port("ddq_detr", "tiny_4scale").layout("legacy").tensors
    state = {key: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for key, spec in tensors.items()}
    torch.save({"state_dict": state}, tmp_path / "legacy.pth")
    monkeypatch.chdir(tmp_path)
    printed = {}
    for title, code in EXAMPLES:
        exec(compile(code, title, "exec"), {})
        printed[title] = capsys.readouterr().out
    assert set(printed) == {
        "Convert a file", "Compare two implementations", "Compare two traces again",
        "Record a golden file and check against it", "Errors", "Read a trace", "Check two modules at hand",
        "Record two scripts",
    }  # fmt: skip
    assert printed["Convert a file"].startswith("new.safetensors ")
    assert "records compared" in printed["Compare two implementations"]
    assert printed["Compare two traces again"] == "MATCH ()\n"
    assert printed["Record a golden file and check against it"].endswith("\nMATCH\n")
    assert printed["Check two modules at hand"].startswith("MATCH ")
    assert printed["Record two scripts"].startswith("MATCH ")
    assert printed["Errors"].startswith("cannot run: Family ddq_detr needs --legacy-repo")
    assert printed["Read a trace"].startswith("torch.Size(")
