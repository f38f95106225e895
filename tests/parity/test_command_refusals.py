"""Commands that are given the wrong thing: one line that says what it is and what to pass in its place."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import parity as package
from converters.rules.ports import port
from parity.golden import golden
from parity.scripts.checking import Checked
from parity.scripts.goldens import record_module
from parity.sides.settings import SettingsError, Task
from parity.sides.shared import foreign
from tests.models import NEW_ADAPTER

from .synthetic import Rec, write_trace
from .test_bisect import kept_run
from .test_shared import FAMILY, PORT

SEQUENCE = Path(__file__).with_name("sequence_family")
RECORDS = [Rec("module_out", "m", [1.0])]


@pytest.fixture
def line(parity):
    """Return a function that runs a command that must refuse its input, and gives the only line it says."""

    def call(*arguments):
        result = parity(*arguments)
        assert result.exit_code == 2 and result.stdout == "", result.output
        said = [part for part in result.stderr.splitlines() if not part.startswith(("Usage:", "Try "))]
        assert "Traceback" not in result.stderr
        return " ".join(" ".join(said).split())

    return call


@pytest.fixture
def script(tmp_path):
    """Return a trace that a script recorded."""
    model = nn.Linear(3, 2)
    with package.capture(model, tmp_path / "script"):
        model(torch.ones(1, 3))
    return tmp_path / "script"


@pytest.fixture
def trace(tmp_path):
    """Return a trace of a family that is not installed."""
    return write_trace(tmp_path / "runs" / "legacy", *RECORDS).folder


def test_traces_of_a_script_and_of_a_run_are_not_compared(line, script, trace):
    for pair in ((script, trace), (trace, script)):
        assert f"{script} was recorded by a script, {trace} by a run; give two of one kind." in line("compare", *pair)


def test_options_are_for_one_kind_of_traces(line, script, trace, tmp_path):
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"rules": [{"rename": "a.*", "to": "b.*"}]}))
    said = line("compare", script, script, "--family", "mmdet_ddq", "--variant", "tiny_4scale")
    assert f"{script} was recorded by a script and is of no family; leave --family and --variant out." in said
    assert f"{trace} was recorded by a run, whose family has rules of its own; leave --rules out." in line(
        "compare", trace, trace, "--rules", rules
    )


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", '{"task": null}'])
def test_a_family_that_is_not_installed_is_asked_for(line, trace, content):
    if content is not None:
        (trace.parent / "run.json").write_text(content)
    assert f"Family toy of {trace} is not installed; pass its folder with --family." in line("compare", trace, trace)


def test_a_golden_file_of_a_module_is_for_its_test(line, tmp_path):
    file = tmp_path / "net.npz"
    golden.save(record_module(nn.Linear(3, 2), Checked(torch.ones(1, 3)), print), file)
    assert f"{file} is of a module that a test makes; run that test with pytest (docs/pytest.md)." in line("check", file)


def test_audit_of_no_trace(line, tmp_path):
    assert str(tmp_path / "none") in line("audit", tmp_path / "none")


@pytest.mark.parametrize("name", ["my-model", "2d", "a b"])
def test_a_family_is_named_as_a_module_of_python(line, tmp_path, name):
    said = line("new-family", tmp_path / name)
    assert said.endswith(f"'{name}' cannot be the name of a family; choose a folder named with letters, digits and _.")
    assert not (tmp_path / name).exists()


def test_a_family_takes_no_place_of_something_else(line, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    for name in ("file", "full"):
        assert line("new-family", tmp_path / name).endswith(
            f"{tmp_path / name} exists and holds something; choose a folder that does not exist, or is empty."
        )


@pytest.mark.parametrize("pattern", ["new:", "legacy:module_out:a:b", "#slot"])
def test_an_exclusion_names_what_it_leaves_out(line, trace, pattern):
    said = line("compare", trace, trace, "--exclude", pattern, "--reason", "because")
    assert f"--exclude {pattern!r} with --reason 'because'; expected [legacy:|new:][KIND:]NAME[#SLOT] and a reason." in said


def test_an_exclusion_is_of_a_side_or_a_kind(line, trace):
    said = line("compare", trace, trace, "--exclude", "old:m", "--reason", "because")
    assert "'old' is no side and no kind of records; expected legacy, new, or one of " in said


def test_images_are_for_detectors(line, tmp_path):
    (tmp_path / "a.png").write_bytes(b"not looked at")
    said = line("run", "--family", SEQUENCE, "--image", tmp_path / "a.png")
    assert "has inputs of its own, which are no images; pass a file of them with --inputs." in said


def test_inputs_that_are_no_safetensors_are_refused(line, tmp_path):
    file = tmp_path / "inputs.safetensors"
    file.write_bytes(b"nothing of the kind")
    assert f"{file} cannot be read as safetensors: " in line("run", "--family", SEQUENCE, "--inputs", file)


def test_a_kept_run_of_a_family_that_is_gone_is_refused(line, tmp_path):
    run = kept_run(tmp_path / "run", "forward")
    options = json.loads((run / "run.json").read_text())
    options["task"]["family"] = "gone"
    (run / "run.json").write_text(json.dumps(options))
    assert f"{run}/run.json names what is not there: " in line("bisect", run)


def test_a_kept_run_without_its_new_side_is_made_again(line, tmp_path):
    run = kept_run(tmp_path / "run", "forward")
    (run / "new.job.json").unlink()
    assert "has no new.job.json; make the run again with `ddq-parity run ... --out`." in line("bisect", run)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(ranks=9), "Ranks 9 are not 1 to "),
        (dict(amp="fp8"), "Autocast 'fp8' is none of "),
        (dict(clip_order="any"), "Clip order 'any' is neither "),
        (dict(port=port(str(SEQUENCE))), "Family sequence has inputs of its own; leave --size and --objects out."),
    ],
)
def test_a_task_that_cannot_be_carried_out(changes, says):
    given = dict(port=port("mmdet_ddq", "tiny_4scale"), sizes=((64, 64),), objects=None, seed=0, checks=("forward",))
    with pytest.raises(SettingsError) as raised:
        Task(**(given | changes))
    assert str(raised.value).startswith(says)


def test_what_an_adapter_imports_beside_it_is_kept_out_whatever_its_form(tmp_path):
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "parts").mkdir()
    (tmp_path / "lone" / "net.py").touch()
    adapter = tmp_path / "lone" / "adapter.py"
    adapter.write_text("import no_such_package, sysconfig.gone\nfrom . import parts, net, absent\nfrom .net import Net\n")
    places = foreign(FAMILY, adapter, None)
    assert places[:2] == PORT
    assert {Path(place).name for place in places[2:]} == {"adapter.py", "net.py", "parts"}


@pytest.mark.parametrize("code", ["def broken(:\n", "a = '\0'\n"])
def test_an_adapter_that_python_cannot_read_is_kept_out_by_itself(tmp_path, code):
    adapter = tmp_path / "lone" / "adapter.py"
    adapter.parent.mkdir()
    adapter.write_text(code)
    assert foreign(FAMILY, adapter, None) == (*PORT, str(adapter))
    assert foreign(FAMILY, NEW_ADAPTER, None) == PORT
