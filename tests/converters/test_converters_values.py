"""Values that are not what a model needs: counters of another dtype or missing, NaN and infinite numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from torch import Tensor

from converters.cli.main import cli
from converters.formats import finite
from converters.formats.stored import StoredTensor

StateDict = dict[str, Tensor]
COUNTER = "num_batches_tracked"
WEIGHT = "encoder.layers.0.ffn.layers.1.weight"


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _counters(change: Callable[[Tensor], Tensor | None]) -> Callable[[StateDict], StateDict]:
    def make(state: StateDict) -> StateDict:
        changed = {key: change(value) if key.endswith(COUNTER) else value for key, value in state.items()}
        return {key: value for key, value in changed.items() if value is not None}

    return make


def _without_some(state: StateDict) -> StateDict:
    keys = [key for key in state if key.endswith(COUNTER)]
    return {key: value for key, value in state.items() if key not in keys[:4]}


#: How counters are spoiled, what is told, and whether they are 0 afterwards.
COUNTERS: dict[str, tuple[Callable[[StateDict], StateDict], str, bool]] = {
    "float32": (
        _counters(torch.Tensor.float),
        "20 of another form (float32 []) became int64 [], the same values",
        False,
    ),
    "float64": (
        _counters(torch.Tensor.double),
        "20 of another form (float64 []) became int64 [], the same values",
        False,
    ),
    "float16": (
        _counters(torch.Tensor.half),
        "20 of another form (float16 []) became int64 [], the same values",
        False,
    ),
    "int32": (_counters(torch.Tensor.int), "20 of another form (int32 []) became int64 [], the same values", False),
    "uint8": (
        _counters(lambda t: (t % 200).byte()),
        "20 of another form (uint8 []) became int64 [], the same values",
        False,
    ),
    "shape [1]": (_counters(lambda t: t.reshape(1)), "20 of another form (int64 [1]) became int64 []", False),
    "missing": (_counters(lambda t: None), "20 that are missing were set to 0", True),
    "some missing": (_without_some, "4 that are missing were set to 0", False),
}


@pytest.mark.parametrize("form", COUNTERS)
def test_counters_are_brought_to_int64(tmp_path: Path, make_state: Callable[..., StateDict], form: str) -> None:
    make, told, zero = COUNTERS[form]
    state = make(make_state("legacy"))
    path, out = tmp_path / "a.pth", tmp_path / "out.safetensors"
    torch.save({"state_dict": state}, path)
    result = _run("convert", path, out, "--json")
    assert result.exit_code == 0 and told in " ".join(result.stderr.split()), result.output
    found = {key: value for key, value in load_file(out).items() if key.endswith(COUNTER)}
    assert len(found) == 20 and all(value.dtype == torch.int64 and value.shape == () for value in found.values())
    assert all(int(value) == (0 if zero or key not in state else int(state[key])) for key, value in found.items())
    assert _run("verify", out, "--source", path).exit_code == 0
    changed = [line for line in json.loads(result.stdout)["ledger"] if line["changes"]]
    assert len(changed) == (4 if form == "some missing" else 20)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), 1e30])
def test_a_counter_that_is_no_count_is_refused_by_name(
    tmp_path: Path, make_state: Callable[..., StateDict], value: float
) -> None:
    state = make_state("legacy")
    key = next(key for key in state if key.endswith(COUNTER))
    torch.save({"state_dict": {**state, key: torch.tensor(value)}}, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "o.pth")
    assert result.exit_code == 1 and f"The counter `{key}` is " in result.stderr, result.output
    assert not (tmp_path / "o.pth").exists()


def test_counters_of_both_sets_are_mended(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    state = _counters(torch.Tensor.float)(make_state("legacy"))
    averaged = {f"module.{key}": value * 2 for key, value in state.items()}
    path, out = tmp_path / "a.pth", tmp_path / "o.pth"
    torch.save({"state_dict": state, "ema_state_dict": {"steps": torch.tensor(3), **averaged}}, path)
    assert _run("convert", path, out).exit_code == 0
    made = torch.load(out, weights_only=True)
    for held in (made["state_dict"], made["ema_state_dict"]):
        assert {value.dtype for key, value in held.items() if key.endswith(COUNTER)} == {torch.int64}
    assert _run("verify", out, "--source", path).exit_code == 0


NAN, INF = float("nan"), float("inf")
FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "complex64", "complex128"]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("length", [4, 300_000])
def test_numbers_that_are_not_finite_are_counted(dtype: str, length: int) -> None:
    tensor = torch.linspace(-3.0, 3.0, length, dtype=torch.float64)
    tensor[-1] = 400.0  # large, for the narrow dtypes
    kind = getattr(torch, dtype)
    assert finite.count(StoredTensor.from_torch(tensor.to(kind))) is None
    has_infinity = dtype != "float8_e4m3fn"
    tensor[0], tensor[length // 2], tensor[1] = NAN, -INF if has_infinity else 0.0, -NAN
    found = finite.count(StoredTensor.from_torch(tensor.to(kind)))
    assert found == finite.NotFinite(2, 1 if has_infinity else 0)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers_are_finite_whatever_their_bytes(dtype: str) -> None:
    bits = torch.full((64,), 255, dtype=torch.uint8)
    data = bits if dtype != "bool" else torch.ones(64, dtype=torch.uint8)
    assert finite.count(StoredTensor.of(dtype, (64 // getattr(torch, dtype).itemsize,), bytes(data))) is None


@pytest.mark.parametrize(
    "values, text",
    [
        (lambda w: w[0].fill_(NAN), f"`{WEIGHT}` (128 NaN)"),
        (lambda w: w[0, :2].fill_(-INF), f"`{WEIGHT}` (2 infinite)"),
        (lambda w: (w[0, :2].fill_(INF), w[1, 0].fill_(NAN)), f"`{WEIGHT}` (1 NaN, 2 infinite)"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_nan_is_told_by_name_and_number_and_carried(
    tmp_path: Path, make_state: Callable[..., StateDict], values: Callable[[Tensor], Any], text: str, dry: bool
) -> None:
    state = make_state("legacy")
    values(state[WEIGHT])
    path, out = tmp_path / "a.pth", tmp_path / "o.safetensors"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    result = _run("convert", path, out, *(["--dry-run"] if dry else []), "--json")
    named = text.replace("`", "`module.", 1)
    assert result.exit_code == 0 and named in " ".join(result.stderr.split()), result.output
    assert json.loads(result.stdout)["not_finite"].keys() == {WEIGHT}
    assert named in " ".join(_run("inspect", path).stdout.split())
    assert out.exists() != dry
    if not dry:
        assert torch.equal(load_file(out)[WEIGHT].isfinite(), state[WEIGHT].isfinite())
        assert _run("verify", out, "--source", path).exit_code == 0


def test_many_tensors_with_nan_are_counted_and_all_in_json(
    tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    state = {key: value * NAN if value.is_floating_point() else value for key, value in make_state("legacy").items()}
    torch.save(state, tmp_path / "a.pth")
    seen = " ".join(_run("inspect", tmp_path / "a.pth").stdout.split())
    floats = [key for key, value in state.items() if value.is_floating_point()]
    assert f"{len(floats)} tensors hold" in seen and f"and {len(floats) - 3} more" in seen
    found = json.loads(_run("inspect", tmp_path / "a.pth", "--json").stdout)["not_finite"]
    assert found.keys() == set(floats)


def test_nan_of_an_optimizer_is_told_too(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    content = {"state_dict": make_state("new"), "optimizer": {"state": {0: {"m": torch.full((2,), NAN)}}}}
    torch.save(content, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "o.pth", "--keep", "all")
    assert result.exit_code == 0 and "`optimizer.state.0.m` (2 NaN)" in " ".join(result.stderr.split()), result.output
