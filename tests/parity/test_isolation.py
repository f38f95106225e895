"""Isolation names every place that computes something else by itself."""

import json

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
