"""``bisect`` shows an error with one module alone where that can be, and else with the whole model."""

import json
import re
from pathlib import Path

import pytest

LAYER = """class Layer(nn.Linear):
    factor = 1.0

    def forward(self, x, given=None):
        return {code}


class Given:
    def __init__(self, factor):
        self.factor = factor


"""
OLD = {"class OldNet(": "LAYERclass OldNet(", "[nn.Linear(width": "[Layer(width"}
NEW = {"class NewNet(": "LAYERclass NewNet(", "[nn.Linear(channels": "[Layer(channels"}
TIMES = "super().forward(x) * self.factor"
DROPS = "nn.functional.dropout(super().forward(x), 0.5, self.training) * self.factor"
GIVEN = "super().forward(x) * given.factor"


@pytest.fixture
def bisected(parity, tmp_path):
    """Return a function that changes the template's sides, runs and bisects them, and gives what was told and the script."""

    def call(old, new, *arguments, layer=TIMES):
        folder = tmp_path / "mine"
        assert parity("new-family", folder, "-q").exit_code == 0
        for file, changes in (("legacy.py", old), ("new.py", new)):
            text = (folder / file).read_text()
            for was, becomes in changes.items():
                assert was in text
                text = text.replace(was, becomes.replace("LAYER", LAYER.format(code=layer)))
            (folder / file).write_text(text)
        run = tmp_path / "run"
        ran = parity("run", "--family", folder, "--threads", 1, "--out", run, "-q", *arguments)
        assert ran.exit_code == 1, ran.output
        result = parity("bisect", run, "--json")
        assert result.exit_code == 1, result.output
        told = json.loads(result.stdout)
        return told["isolated"][0]["where"], Path(told["script"]).read_text()

    return call


def test_a_script_allows_what_a_fixed_tolerance_does(bisected):
    wrong = {"nn.BatchNorm2d(channels)": "nn.BatchNorm2d(channels, eps=1e-2)"}
    where, script = bisected({}, wrong, "--check", "forward", "--tolerance", "fixed", "--rtol", "0.0001", "--atol", "0.001")
    assert where == "stem.norm" and "model.get_submodule('stem.norm')" in script
    allowed = float(re.search(r"allowed = \{'': ([0-9.e-]+)\}", script)[1])
    assert 0.001 < allowed < 0.002  # some of the outputs are larger than 1 and smaller than 10


def test_an_error_of_the_losses_is_shown_with_the_whole_model(bisected):
    wrong = {'batch["labels"])\n': 'batch["labels"]) * 1.01\n'}
    where, script = bisected({}, wrong, "--check", "forward,loss")
    assert where == "loss_cls" and "flatten(adapter.losses(model, batch)[0])" in script


def test_a_module_that_draws_is_shown_within_the_model_whose_draws_are_repeated(bisected):
    wrong = NEW | {"self.head = ": "self.blocks[1].factor = 1.01\n        self.head = "}
    where, script = bisected(OLD, wrong, "--check", "loss", layer=DROPS)
    assert where == "blocks.1" and "adapter.losses(model, batch)" in script and "get_submodule" not in script


def test_what_a_module_does_only_within_the_model_is_shown_with_that(bisected):
    calls = "block.factor = 1.01\n            features = features + block(features).relu()"
    wrong = NEW | {"features = features + block(features).relu()": calls}
    where, script = bisected(OLD, wrong, "--check", "forward")
    assert where == "blocks.0" and "adapter.predict(model, batch)" in script and "get_submodule" not in script


def test_a_module_whose_arguments_cannot_be_stored_is_shown_with_the_whole_model(bisected):
    old = OLD | {"layer(features)": "layer(features, Given(1.0))"}
    new = NEW | {"block(features)": "block(features, Given(1.01))"}
    where, script = bisected(old, new, "--check", "forward", layer=GIVEN)
    assert where == "blocks.0" and "adapter.predict(model, batch)" in script and "get_submodule" not in script
