"""Rules for two models that are run: what only a run tells is told, and what even a run does not tell stays open."""

from __future__ import annotations

import io
import pickle
import re
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from converters.cli.main import cli
from converters.errors import CheckpointError
from converters.rules.mapping import Permute, Rename, Split
from converters.suggesting import worker
from converters.suggesting.links import RUN
from converters.suggesting.models import suggest_models
from converters.suggesting.process import ModelProcess, RunError

HERE = Path(__file__).with_name("suggest_models")


@pytest.fixture(scope="module")
def found():
    return suggest_models(HERE / "old.py", HERE / "new.py")


def test_a_run_tells_what_names_do_not(found) -> None:
    assert {
        Rename("layers.*.norm1.*", "blocks.*.attn_ln.*"),
        Rename("layers.*.norm2.*", "blocks.*.mlp_ln.*"),
        Split("layers.*.attn.in_proj_weight", ("blocks.*.wq.weight", "blocks.*.wk.weight", "blocks.*.wv.weight")),
        Split("layers.*.attn.in_proj_bias", ("blocks.*.wq.bias", "blocks.*.wk.bias", "blocks.*.wv.bias")),
        Permute("layers.*.square.weight", "blocks.*.mix", axes=(1, 0)),
        Permute("layers.*.fc.weight", "blocks.*.up", axes=(1, 0)),
    } <= set(found.rules)
    assert found.count(RUN) > 20
    assert found.proof.startswith("with the weights of A") and "in float64" in found.proof


def test_what_gives_equal_outputs_either_way_is_open(found) -> None:
    """Two layers that are added, and one that nothing is computed with."""
    unsure = {key.partition(".")[0] for item in found.opens for key in item.a}
    assert unsure == {"one", "two"}
    assert all("equal with more than one" in item.reason for item in found.opens)
    unproven = [link for link in found.findings.links if "unused" in link.rule.sources[0]]
    assert all(link.known != RUN for link in unproven) and "2 parameters of A have no effect" in found.proof


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1", "has no function build()"),
        ("def build():\n    return 3", "returned a int, expected an nn.Module"),
        ("import no_such_module", "cannot be imported: ModuleNotFoundError"),
        ("def build():\n    raise ValueError('no\\nweights')", "bad.py raised ValueError: no weights"),
    ],
)
def test_a_file_without_a_model_says_so(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(worker.Unusable, match=re.escape(line)):
        worker.Model(tmp_path / "bad.py", 0)


def test_a_file_that_is_no_python_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("a: 1")
    with pytest.raises(worker.Unusable, match="model.yaml is no Python file, expected one with build()"):
        worker.Model(tmp_path / "model.yaml", 0)


def test_no_two_weights_of_a_model_are_alike(tmp_path: Path) -> None:
    """Not even those that all norms begin with, so that a run tells them from each other."""
    (tmp_path / "norms.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4))"
    )
    state = {key: value for key, value in worker.Model(tmp_path / "norms.py", 0).state().items() if value.size > 1}
    numbers = [number for value in state.values() for number in value.tolist()]
    assert len(state) == 8 and len(set(numbers)) == len(numbers) == 32
    assert all((value > 0).all() for key, value in state.items() if key.endswith("running_var"))


OWN_KEYS = """
from torch import nn
class Own(nn.Linear):
    def state_dict(self, *args, **options):
        return {"of.nobody": self.weight.data}
def build():
    return Own(2, 3)
def inputs():
    raise KeyError("no images")
"""


def test_requests_are_answered_one_after_the_other(tmp_path: Path) -> None:
    """Also after one that failed; a key of a state dict that no module of the model has is of no kind."""
    (tmp_path / "own.py").write_text(OWN_KEYS)
    asked, answers = io.BytesIO(), io.BytesIO()
    for name in ("inputs", "kinds", "state"):
        pickle.dump((name, ()), asked)
    asked.seek(0)
    worker.serve(tmp_path / "own.py", 0, asked, answers)
    answers.seek(0)
    assert pickle.load(answers) == (True, None)
    assert pickle.load(answers) == (False, "inputs() raised KeyError: 'no images'")
    assert pickle.load(answers) == (True, {})
    is_done, state = pickle.load(answers)
    assert is_done and state["of.nobody"].shape == (3, 2) and not answers.read()


def test_a_file_without_a_model_is_the_only_answer(tmp_path: Path) -> None:
    answers = io.BytesIO()
    worker.serve(tmp_path / "none.py", 0, io.BytesIO(), answers)
    answers.seek(0)
    assert pickle.load(answers) == (False, f"there is no file {tmp_path / 'none.py'}") and not answers.read()


def test_a_process_that_ends_is_said_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(CheckpointError, match="Cannot take a model from `.*ends.py`: its process ended with code 3."):
        ModelProcess(tmp_path / "ends.py", 0)


def bare_process(*command: str) -> ModelProcess:
    """Return a process that answers nothing, without the seconds that one with a model needs to begin."""
    process = object.__new__(ModelProcess)
    process._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return process


def test_a_request_to_a_process_that_has_ended_is_refused() -> None:
    with bare_process("true") as process:
        process._process.wait()
        with pytest.raises(RunError, match="its process has ended"):
            process.state()


def test_an_error_ends_the_process_at_once() -> None:
    process = bare_process("sleep", "60")
    with pytest.raises(ValueError, match="elsewhere"), process:
        raise ValueError("elsewhere")
    assert process._process.returncode == -signal.SIGKILL


def test_an_error_of_the_process_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["suggest", "--models", str(tmp_path / "no.py"), str(HERE / "new.py")])
    assert done.exit_code == 2 and done.output.startswith("error: Cannot take a model from ")
    assert "there is no file" in done.output and "Traceback" not in done.output
