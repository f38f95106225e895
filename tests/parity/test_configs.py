"""Models that a family makes of two configs, one of each side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from legacy_adapters.family import Family
from legacy_adapters.ground.console import Failure
from parity.cli.early import resolved
from parity.cli.main import cli
from parity.sides.settings import Task

#: What a family with such models adds to the template: its configs are JSON files of options.
CONFIGURED = """
import json
from dataclasses import replace


def configured(legacy, new):
    read = [json.loads(Path(config).read_text()) if config else {} for config in (legacy, new)]
    return Variant("any", legacy=read[0], new=read[1], title="of configs")


FAMILY = replace(FAMILY, configured=configured)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a family of any number of models, and a config of each side beside it; return the folder of both."""
    folder = tmp_path_factory.mktemp("of_configs")
    result = CliRunner().invoke(cli, ["new-family", str(folder / "mine")])
    assert result.exit_code == 0, result.output
    file = folder / "mine" / "family.py"
    file.write_text(file.read_text() + CONFIGURED)
    (folder / "old.json").write_text(json.dumps({"width": 12}))
    (folder / "new.json").write_text(json.dumps({"channels": 12}))
    return folder


def test_a_run_takes_the_model_of_two_configs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    of_configs = ["--legacy-config", "old.json", "--new-config", "new.json", "--threads", "1", "--check", "forward"]
    result = CliRunner().invoke(cli, ["run", "--family", "mine", *of_configs, "--out", "run"])
    assert result.exit_code == 0 and "MATCH" in result.stdout, result.output
    monkeypatch.chdir(folder.parent)
    # a kept run finds its model again, from any folder
    result = CliRunner().invoke(cli, ["compare", str(folder / "run" / "legacy"), str(folder / "run" / "new")])
    assert result.exit_code == 0 and "MATCH" in result.stdout, result.output
    task = json.loads((folder / "run" / "run.json").read_text())["task"]
    assert Task.from_dict(task).port.variant.legacy == {"width": 12}


def test_messages_call_it_by_its_title(folder):
    port = resolved(str(folder / "mine"), None, str(folder / "old.json"), str(folder / "new.json"))
    assert str(port).endswith(" of configs") and isinstance(port.family, Family)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(legacy_config="old.json"), "pass --new-config, too"),
        (dict(new_config="new.json"), "pass --legacy-config, too"),
        (dict(variant="small", legacy_config="old.json", new_config="new.json"), "leave one of them out"),
    ],
)
def test_configs_that_do_not_make_a_model(folder, given, message):
    with pytest.raises(Failure, match=message):
        resolved(str(folder / "mine"), **{"variant": None, **given})


def test_a_family_without_such_models_takes_no_configs():
    with pytest.raises(Failure, match="has no models of configs"):
        resolved("mmdet_ddq", None, "old.py", "new.py")
