"""Two checkpoints compared, across formats and layouts, and what `ddq-convert diff` makes of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from converters.cli.main import cli
from converters.examining import diff
from converters.examining.diff import DTYPE, SHAPE, VALUE, Diff
from converters.rules.layout import TensorSpec

REPO = Path(__file__).resolve().parents[2]
StateDict = dict[str, Tensor]
INF, NAN = math.inf, math.nan


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _diff(folder: Path, a: StateDict, b: StateDict) -> Diff:
    torch.save({"state_dict": a}, folder / "a.pth")
    torch.save(b, folder / "b.pth")
    return diff.diff_files(folder / "a.pth", folder / "b.pth")


@pytest.fixture
def converted(tmp_path: Path, legacy_file: Path) -> Path:
    """Return the new layout of `legacy_file`, as safetensors."""
    assert _run("convert", legacy_file, tmp_path / "new.safetensors").exit_code == 0
    return tmp_path / "new.safetensors"


def test_a_converted_file_is_equal_to_its_source_both_ways(legacy_file: Path, converted: Path) -> None:
    there = _run("diff", legacy_file, converted)
    assert there.exit_code == 0 and there.stderr == ""
    assert there.stdout.splitlines() == [
        f"A             {legacy_file}",
        "              326 tensors, ddq_detr tiny_r18, legacy side",
        f"B             {converted}",
        "              308 tensors, ddq_detr tiny_r18, new side",
        "left out      18 duplicates in A, equal to their twins",
        "compared      308, 8 of them under another key",
        "equal         308",
        "EQUAL 308 tensors",
    ]
    back = _run("diff", converted, legacy_file)
    assert back.exit_code == 0 and "18 duplicates in B" in back.stdout
    assert _run("diff", legacy_file, converted, "-q").stdout == ""


def test_equality_needs_no_torch(legacy_file: Path, converted: Path) -> None:
    code = (
        "import sys; from converters.cli.main import cli\n"
        f"code = cli.main(['diff', {str(legacy_file)!r}, {str(converted)!r}], standalone_mode=False)\n"
        "print(code, sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-2:] == ["EQUAL 308 tensors", "0 []"]


def test_differences_are_told_in_the_names_of_both(tmp_path: Path, legacy_file: Path, converted: Path) -> None:
    state = torch.load(legacy_file, weights_only=True)["state_dict"]
    changed = "bbox_head.cls_branches.4.bias"
    state[changed] = state[changed] + torch.tensor([0.0, 0.0, 0.5])
    del state["level_embed"]
    state["extra"] = torch.zeros(2)
    torch.save(state, tmp_path / "changed.pth")
    result = _run("diff", tmp_path / "changed.pth", converted)
    assert result.exit_code == 1 and result.stderr == ""
    assert result.stdout.splitlines()[4:] == [
        "left out      18 duplicates in A, equal to their twins",
        "compared      307, 8 of them under another key",
        "equal         306",
        "only in A     1",
        "only in B     1",
        "other values  1",
        "only in A",
        "  extra",
        "only in B",
        "  level_embed",
        "other values",
        "  bbox_head.cls_branches.4.bias -> bbox_head.aux_cls_branches.3.bias",
        "    1 of 3 elements, by up to 0.5",
        "DIFFERENT 3 of 309 tensors",
    ]


def test_a_duplicate_that_differs_is_not_left_out(tmp_path: Path, legacy_file: Path, converted: Path) -> None:
    state = torch.load(legacy_file, weights_only=True)["state_dict"]
    state["decoder.aux_reg_branches.1.2.weight"] = torch.zeros(64, 64)
    torch.save(state, tmp_path / "changed.pth")
    found = diff.diff_files(tmp_path / "changed.pth", converted)
    assert found.only_a == ("decoder.aux_reg_branches.1.2.weight",) and len(found.a.duplicates) == 17
    assert found.only_b == () and found.differences == ()


def test_files_of_one_layout_keep_their_names(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    found = _diff(tmp_path, make_state(duplicates=True), make_state(duplicates=False))
    assert found.is_empty and found.renamed == 0 and len(found.a.duplicates) == 18 and found.b.duplicates == ()


def test_a_key_that_another_one_is_translated_to_is_not_mixed_up(
    tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    strange = make_state("legacy") | {"bbox_head.aux_cls_branches.3.bias": torch.full((3,), 9.0)}
    new = make_state("new")
    new["bbox_head.aux_cls_branches.3.bias"] = strange["bbox_head.cls_branches.4.bias"]
    found = _diff(tmp_path, strange, new)
    assert "bbox_head.aux_cls_branches.3.bias" in found.only_a
    assert not any(difference.a == "bbox_head.cls_branches.4.bias" for difference in found.differences)


@pytest.mark.parametrize(
    "a, b, kind, differing, max_abs",
    [
        (torch.ones(2), torch.ones(3), SHAPE, None, None),
        (torch.ones(2), torch.ones(1, 2), SHAPE, None, None),
        (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 2.0]), VALUE, 2, 1.0),
        (torch.tensor([0.0]), torch.tensor([-0.0]), VALUE, 1, 0.0),
        (torch.tensor([NAN, 1.0]), torch.tensor([2.0, 1.0]), VALUE, 1, NAN),
        (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 2.0]), VALUE, 1, 1.0),
        (torch.tensor([INF, INF]), torch.tensor([INF, 1.0]), VALUE, 1, INF),
        (torch.tensor([2**62 + 1]), torch.tensor([2**62]), VALUE, 1, 1.0),
        (torch.tensor([2**63 - 1]), torch.tensor([-(2**63)]), VALUE, 1, 2.0**64),
        (torch.tensor([True, False]), torch.tensor([True, True]), VALUE, 1, 1.0),
        (torch.tensor(3j), torch.tensor(4.0 + 0j), VALUE, 1, 5.0),
        (torch.tensor([1.0, 2.0]).half(), torch.tensor([1.0, 2.0]), DTYPE, 0, 0.0),
        (torch.tensor([0.1]).bfloat16(), torch.tensor([0.1], dtype=torch.float64), DTYPE, 1, 0.1 - 0.10009765625),
        (torch.tensor([1.0]).to(torch.float8_e5m2), torch.tensor([1.5]).to(torch.float8_e5m2), VALUE, 1, 0.5),
        (torch.tensor([3], dtype=torch.int8), torch.tensor([5.0]), DTYPE, 1, 2.0),
        (torch.zeros(0), torch.zeros(0).half(), DTYPE, 0, 0.0),
        (torch.zeros(3 << 20), torch.zeros(3 << 20).index_fill(0, torch.tensor([5, 3_000_000]), 2.0), VALUE, 2, 2.0),
    ],
)
def test_kinds_of_differences(
    tmp_path: Path, a: Tensor, b: Tensor, kind: str, differing: int | None, max_abs: float | None
) -> None:
    (found,) = _diff(tmp_path, {"x": a}, {"x": b}).differences
    assert (found.kind, found.differing) == (kind, differing)
    assert found.max_abs == (None if max_abs is None else pytest.approx(abs(max_abs), nan_ok=True))
    assert found.spec_a == TensorSpec(str(a.dtype).removeprefix("torch."), tuple(a.shape))


@pytest.mark.parametrize("tensor", [torch.tensor([NAN]), torch.zeros(0), torch.tensor(1), torch.ones(2, 3).t()])
def test_the_same_bits_are_no_difference(tmp_path: Path, tensor: Tensor) -> None:
    found = _diff(tmp_path, {"x": tensor}, {"x": tensor.clone().contiguous()})
    assert found.is_empty and found.equal == 1


def test_unknown_models_are_compared_by_key(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.pth")
    save_file({"weight": torch.zeros(2, 2), "scale": torch.ones(1)}, tmp_path / "b.safetensors")
    found = diff.diff_files(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert (found.only_a, found.only_b, found.equal) == (("bias",), ("scale",), 0)
    assert [difference.a for difference in found.differences] == ["weight"] and found.a.detection is None
    assert "2 tensors, unknown layout" in _run("diff", tmp_path / "a.pth", tmp_path / "b.safetensors").stdout


def _many(folder: Path) -> tuple[Path, Path]:
    wide = {f"block.{i}.{'very_long_name.' * 5}weight": torch.full((2,), float(i)) for i in range(9)}
    torch.save(wide | {"s": torch.ones(1), "t": torch.ones(1)}, folder / "a.pth")
    torch.save(
        {key: tensor * 2 for key, tensor in wide.items()} | {"s": torch.ones(2), "t": torch.ones(1).half()},
        folder / "b.pth",
    )
    return folder / "a.pth", folder / "b.pth"


def test_most_important_first_and_all_with_verbose(tmp_path: Path) -> None:
    a, b = _many(tmp_path)
    lines = _run("diff", a, b).stdout.splitlines()
    begin = lines.index("other shape")
    assert lines[begin : begin + 5] == [
        "other shape",
        "  s",
        "    float32 [1] against float32 [2]",
        "other dtype",
        "  t",
    ]
    assert lines[begin + 5] == "    float32 against float16, 0 of 1 elements, by up to 0"
    values = lines[lines.index("other values") :]
    assert values[1].startswith("  block.8.") and values[2] == "    2 of 2 elements, by up to 8"
    assert values[-2] == "  and 2 more; --verbose lists all" and values[-1] == "DIFFERENT 10 of 11 tensors"
    every = _run("diff", a, b, "--verbose").stdout
    assert "more; --verbose" not in every and every.count("by up to") == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lines_fit_a_terminal_where_keys_do(
    tmp_path: Path, legacy_file: Path, make_state: Callable[..., StateDict], dtype: torch.dtype
) -> None:
    other = {key: (tensor + 1).to(dtype) for key, tensor in make_state("new").items()}
    torch.save(other, tmp_path / "b.pth")
    lines = _run("diff", legacy_file, tmp_path / "b.pth", "--verbose").stdout.splitlines()
    assert len(lines) > 500 and max(len(line) for line in lines[4:]) <= 80


def test_json(tmp_path: Path) -> None:
    a, b = _many(tmp_path)
    result = _run("diff", a, b, "--json")
    data = json.loads(result.stdout)
    assert result.exit_code == 1 and data["is_empty"] is False and len(data["differences"]) == 10
    torch.save({"x": torch.tensor([NAN])}, tmp_path / "c.pth")
    torch.save({"x": torch.tensor([1.0])}, tmp_path / "d.pth")
    data = json.loads(_run("diff", tmp_path / "c.pth", tmp_path / "d.pth", "--json").stdout, parse_constant=pytest.fail)
    assert data["differences"][0]["max_abs"] == "nan"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("make", ["missing", "text", "cut", "flipped"])
def test_bad_input(tmp_path: Path, legacy_file: Path, make: str, order: int) -> None:
    bad = tmp_path / "bad.pth"
    data = legacy_file.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    contents = {"text": b"not a checkpoint", "cut": data[: len(data) // 2], "flipped": bytes(flipped)}
    if make in contents:
        bad.write_bytes(contents[make])
    result = _run("diff", *[legacy_file, bad][::order])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1 and "bad.pth" in result.stderr


def test_averaged_and_training_weights_are_both_compared(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    training = make_state(duplicates=True)
    averaged = {key: tensor / 2 if tensor.is_floating_point() else tensor for key, tensor in make_state().items()}
    copies = {key: tensor for key, tensor in training.items() if key not in averaged}
    ema = {"steps": torch.tensor(3)} | {f"module.{key}": training[key] for key in averaged}
    torch.save({"state_dict": averaged | copies, "ema_state_dict": ema, "meta": {}}, tmp_path / "a.pth")
    assert _run("convert", tmp_path / "a.pth", tmp_path / "all.pth").exit_code == 0
    both = _run("diff", tmp_path / "a.pth", tmp_path / "all.pth")
    assert both.exit_code == 0 and both.stdout.splitlines()[-1] == "EQUAL 616 tensors"
    assert _run("convert", tmp_path / "a.pth", tmp_path / "one.safetensors").exit_code == 0
    one = _run("diff", tmp_path / "a.pth", tmp_path / "one.safetensors")
    assert one.exit_code == 0 and one.stdout.splitlines()[-1] == "EQUAL 308 tensors"
    assert "not compared  training weights in ema_state_dict of A" in one.stdout.splitlines()
    content = torch.load(tmp_path / "all.pth", weights_only=True)
    content["ema_state_dict"]["module.level_embed"][0, 0] += 1
    torch.save(content, tmp_path / "all.pth")
    changed = diff.diff_files(tmp_path / "a.pth", tmp_path / "all.pth")
    assert [difference.a for difference in changed.differences] == ["ema_state_dict.level_embed"]
