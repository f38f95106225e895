"""Under derived tolerance the step of a parameter whose gradient is only rounding shows nothing, and hides nothing."""

import json
from pathlib import Path

import pytest

from parity.comparing.derived import only_rounding
from parity.comparing.evidence import Norms

from .test_derived import sample
from .test_families import parity

FAMILY = Path(__file__).with_name("rounding_family")
BIASES = ["conv.bias", "key.bias"]
RUN = ("--tolerance", "derived", "--check", "train", "--steps", 2, "--threads", 1, "--json")


@pytest.mark.parametrize(
    ("size", "spread", "expected"),
    [
        (1e-17, 1e-9, True),
        (0.0, 1e-9, True),
        (1e-12, 1e-9, False),  # small, and yet no rounding in float64
        (1e-9, 1e-9, False),
        (1.0, 1e-9, False),
        (0.0, 0.0, False),  # zero in every run: its step is compared as ever
        (1e-17, 0.0, False),
    ],
)
def test_a_gradient_is_only_rounding_if_float64_tells_it_from_zero_by_no_more(size, spread, expected):
    assert only_rounding(sample([size, 0.0], spread=Norms(spread, spread))) is expected


def family_with(folder, right, wrong):
    """Return a copy of the family with an error in its port."""
    folder.mkdir()
    for file in FAMILY.glob("*.py"):
        code = file.read_text()
        assert file.name != "new.py" or right in code
        (folder / file.name).write_text(code.replace(right, wrong) if file.name == "new.py" else code)
    return folder


def test_steps_of_biases_without_effect_are_named_and_all_else_matches():
    result = parity("run", "--family", FAMILY, *RUN)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["verdict"] == "MATCH" and report["seeds_before"] == []
    assert sorted(report["only_rounding"]) == BIASES


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        # what has no effect gets one, so that its gradient is not zero but for rounding any more
        ("self.key.bias.sum()", "key.bias"),
        # what has an effect gets a little more
        ("(self.query.bias.detach() - self.query.bias).sum()", "query.bias"),
    ],
)
def test_a_wrong_gradient_is_found_all_the_same(tmp_path, wrong, name):
    right = "mean(1)).flip(0)"
    family = family_with(tmp_path / "family", right, f"{right} + {wrong} * points.new_tensor([0.0, 0.0, 1e-4])")
    result = parity("run", "--family", family, *RUN)
    assert result.exit_code == 1, result.output
    differing = [one for one in json.loads(result.stdout)["differing"] if not one["accepted"]]
    assert name in {one["name"] for one in differing if one["kind"] == "grad"}
