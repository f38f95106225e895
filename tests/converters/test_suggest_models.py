"""Rules for two models that are run: what only a run tells is told, and what even a run does not tell stays open."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from converters.cli.main import cli
from converters.rules.mapping import Permute, Rename, Split
from converters.suggesting import worker
from converters.suggesting.links import RUN
from converters.suggesting.models import suggest_models

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
    ],
)
def test_a_file_without_a_model_says_so(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(worker.Unusable, match=re.escape(line)):
        worker.Model(tmp_path / "bad.py", 0)


def test_an_error_of_the_process_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["suggest", "--models", str(tmp_path / "no.py"), str(HERE / "new.py")])
    assert done.exit_code == 2 and done.output.startswith("error: Cannot take a model from ")
    assert "there is no file" in done.output and "Traceback" not in done.output
