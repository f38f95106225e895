"""`ddq-convert convert` with other classes and other dtypes, from the outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from converters.cli.main import cli
from converters.reading import checkpoint
from legacy_adapters import registry
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of

StateDict = dict[str, Tensor]
BIAS, LABELS = "bbox_head.cls_branches.0.bias", "dn_query_generator.label_embedding.weight"


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _named_as(side: str, legacy: StateDict) -> StateDict:
    mapping = mapping_of("ddq_detr", "tiny_r18")
    return {key if side == "legacy" else mapping.target_of(key): tensor for key, tensor in legacy.items()}


@pytest.fixture
def named_file(tmp_path: Path, make_state: Callable[..., StateDict]) -> Path:
    """Save a legacy checkpoint that names its classes, with duplicates and an optimizer that has done nothing."""
    meta = {"epoch": 12, "dataset_meta": {"classes": ("disc", "box", "bar"), "palette": [(1, 2, 3)]}}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    path = tmp_path / "named.pth"
    torch.save({"meta": meta, "state_dict": make_state(duplicates=True), "optimizer": optimizer}, path)
    return path


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    """Write a class map for two classes of which one is new."""
    path = tmp_path / "map.json"
    path.write_text('{"plate": "disc", "ring": null}')
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("to", ["new", "legacy"])
def test_other_classes(
    tmp_path: Path, named_file: Path, class_map: Path, make_state: Callable[..., StateDict], suffix: str, to: str
) -> None:
    out = tmp_path / f"out{suffix}"
    result = _run("convert", named_file, out, "--to", to, "--num-classes", 2, "--class-map", class_map, "-v")
    assert result.exit_code == 0, result.output
    assert ", 18 duplicates dropped, 17 changed -> " in result.stdout
    assert f"change {BIAS}: rows 0, 1 initialised of 3, seed 0" in result.stderr.splitlines()
    loaded = checkpoint.read(out)
    assert loaded.meta["dataset_meta"] == {"classes": ["plate", "ring"]}
    state, source = loaded.to_torch(), _named_as(to, make_state())
    assert state.keys() == source.keys()
    assert torch.equal(state[LABELS][0], source[LABELS][0]) and len(state[LABELS]) == 2
    assert state[BIAS].tolist() == [source[BIAS][0].item(), pytest.approx(-4.59512)]
    assert torch.equal(state["level_embed"], source["level_embed"])
    for source_option in ([], ["--source", named_file]):
        verified = _run("verify", out, *source_option)
        assert verified.exit_code == 0 and verified.stdout.startswith("VERIFIED 308 tensors"), verified.output
    again = tmp_path / f"again{suffix}"
    _run("convert", named_file, again, "--to", to, "--num-classes", 2, "--class-map", class_map)
    assert again.read_bytes() == out.read_bytes()
    other = tmp_path / f"other{suffix}"
    _run("convert", named_file, other, "--to", to, "--num-classes", 2, "--class-map", class_map, "--seed", 1)
    differing = {
        key for key, tensor in checkpoint.read(other).to_torch().items() if not torch.equal(tensor, state[key])
    }
    assert differing == {key for key in state if key == LABELS or ("cls_branches" in key and key.endswith("weight"))}


def test_classes_without_a_map_are_all_new_and_that_is_told(tmp_path: Path, named_file: Path) -> None:
    result = _run("convert", named_file, tmp_path / "out.pth", "--num-classes", 5)
    assert result.exit_code == 0
    assert " ".join(result.stderr.split()) == (
        "note: All 5 classes are initialised, because the source has 3 and no --class-map says which of them to take."
    )
    loaded = checkpoint.read(tmp_path / "out.pth")
    assert loaded.to_torch()[BIAS].unique().numel() == 1 and "dataset_meta" not in loaded.meta
    assert _run("convert", named_file, tmp_path / "quiet.pth", "--num-classes", 5, "-q").output == ""


def test_a_checkpoint_of_other_classes_is_converted_as_it_is(
    tmp_path: Path, named_file: Path, assert_same: Callable[..., None]
) -> None:
    five, back = tmp_path / "five.safetensors", tmp_path / "back.safetensors"
    assert _run("convert", named_file, five, "--num-classes", 5).exit_code == 0
    refused = _run("convert", five, back, "--to", "legacy")
    assert refused.exit_code == 1 and "has 5 classes, variant `tiny_r18` has 3" in refused.stderr
    assert "or pass --num-classes to `ddq-convert convert`" in refused.stderr
    result = _run("convert", five, back, "--to", "legacy", "--num-classes", 5)
    assert result.exit_code == 0 and result.stderr == "" and "changed" not in result.stdout
    assert _run("verify", back, "--source", five).exit_code == 0
    before, after = checkpoint.read(five).to_torch(), checkpoint.read(back).to_torch()
    after = {key.replace("_branches.4.", "_branches.3."): tensor for key, tensor in after.items() if "s.4." in key} | {
        key: tensor for key, tensor in after.items() if "s.4." not in key
    }
    assert torch.equal(after[LABELS], before[LABELS]) and after["level_embed"].equal(before["level_embed"])
    assert _run("diff", five, back).exit_code == 0


def test_training_state_of_other_classes_is_refused_or_left_out(
    tmp_path: Path, named_file: Path, class_map: Path
) -> None:
    out = tmp_path / "out.pth"
    for option in (["--num-classes", 2, "--class-map", class_map], ["--dtype", "bf16"]):
        result = _run("convert", named_file, out, *option, "--keep", "all", "--force")
        assert result.exit_code == 1 and not out.exists() and len(result.stderr.splitlines()) == 1
        assert "holds weights only, so --keep all is impossible" in result.stderr
        result = _run("convert", named_file, out, *option, "--force")
        assert result.exit_code == 0 and "without optimizer" in result.stdout
        assert checkpoint.read(out).other_keys == ()
        out.unlink()


@pytest.mark.parametrize(
    "options, text, message",
    [
        (["--num-classes", 2], '{"a": "disk", "b": null}', "no class called `disk`, expected one, such as `disc`."),
        (["--num-classes", 2], '{"a": 3, "b": null}', "asks for class 3 of the source, which has 0 to 2."),
        (["--num-classes", 2], '{"a": 1}', "The class map lacks class 1, expected 2"),
        (["--num-classes", 2], "[]", "it is not a JSON object with classes in it, expected one such as"),
        ([], '{"a": 1}', "A class map needs the number of classes; pass --num-classes, too."),
    ],
)
def test_a_wrong_class_map(tmp_path: Path, named_file: Path, options: list[object], text: str, message: str) -> None:
    (tmp_path / "map.json").write_text(text)
    before = sorted(tmp_path.iterdir())
    result = _run("convert", named_file, tmp_path / "out.pth", "--class-map", tmp_path / "map.json", *options)
    assert result.exit_code == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert message in result.stderr and sorted(tmp_path.iterdir()) == before


def test_a_missing_class_map(tmp_path: Path, named_file: Path) -> None:
    missing = tmp_path / "no.json"
    result = _run("convert", named_file, tmp_path / "out.pth", "--class-map", missing, "--num-classes", 2)
    assert (
        result.exit_code == 2
        and result.stderr == f"error: Cannot read or write `{missing}`: No such file or directory.\n"
    )


@pytest.mark.parametrize("number", [0, -1, 100_001])
def test_numbers_of_classes_that_make_no_sense(tmp_path: Path, named_file: Path, number: int) -> None:
    result = _run("convert", named_file, tmp_path / "out.pth", "--num-classes", number)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name, dtype", [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_dtype_there_and_back(
    tmp_path: Path, named_file: Path, make_state: Callable[..., StateDict], suffix: str, name: str, dtype: torch.dtype
) -> None:
    half, back = tmp_path / f"half{suffix}", tmp_path / f"back{suffix}"
    result = _run("convert", named_file, half, "--dtype", name, "-v")
    assert result.exit_code == 0 and ", 288 changed" in result.stdout, result.output
    assert f"change level_embed: float32 to {str(dtype)[6:]}" in result.stderr.splitlines()
    state, source = checkpoint.read(half).to_torch(), _named_as("new", make_state())
    for key, tensor in source.items():
        assert torch.equal(state[key], tensor.to(dtype) if tensor.is_floating_point() else tensor), key
    assert _run("verify", half, "--source", named_file).exit_code == 0
    refused = _run("convert", half, back, "--to", "legacy")
    assert (
        refused.exit_code == 1
        and "(expected float32, found float16)".replace("float16", str(dtype)[6:]) in refused.stderr
    )
    assert "pass --dtype fp32 to `ddq-convert convert`, which casts them" in refused.stderr
    assert _run("convert", half, back, "--to", "legacy", "--dtype", "fp32").exit_code == 0
    assert _run("verify", back, "--source", half).exit_code == 0
    found = checkpoint.read(back).to_torch()
    for key, tensor in make_state().items():
        assert torch.equal(found[key], tensor.to(dtype).float() if tensor.is_floating_point() else tensor), key


def test_overflow_is_refused_and_what_becomes_zero_is_told(
    tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    state = make_state()
    state["level_embed"][0, :3] = torch.tensor([1e-12, -1e-12, 0.0])
    torch.save(state, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "b.pth", "--dtype", "fp16")
    assert result.exit_code == 0
    assert " ".join(result.stderr.split()).endswith(" so small that they became 0 as float16.")
    state["level_embed"][1, 1] = 1e5
    torch.save(state, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "c.pth", "--dtype", "fp16")
    assert result.exit_code == 1 and not (tmp_path / "c.pth").exists()
    assert result.stderr == (
        "error: 1 of 256 elements of key `level_embed` would be infinite as float16 (largest 100000); choose a dtype "
        "with a wider range, such as bf16.\n"
    )


def test_switches_work_on_a_file_of_the_right_layout(
    tmp_path: Path, make_state: Callable[..., StateDict], class_map: Path
) -> None:
    torch.save({"state_dict": make_state("new"), "meta": {"CLASSES": ("disc", "box", "bar")}}, tmp_path / "a.pth")
    out = tmp_path / "b.pth"
    for options in (["--dtype", "fp32"], ["--num-classes", 3]):
        refused = _run("convert", tmp_path / "a.pth", out, *options)
        assert refused.exit_code == 2 and "already has the new layout" in refused.stderr
    for options in (["--dtype", "bf16"], ["--num-classes", 2, "--class-map", class_map]):
        assert _run("convert", tmp_path / "a.pth", out, *options, "--force").exit_code == 0
    both = _run("convert", tmp_path / "a.pth", out, "--dtype", "fp16", *options, "--force", "-v")
    assert f"change {BIAS}: rows 0, 1 initialised of 3, seed 0; float32 to float16" in both.stderr.splitlines()
    assert checkpoint.read(out).to_torch()[BIAS].dtype == torch.float16 and _run("verify", out).exit_code == 0


def test_names_alone_can_be_changed(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    torch.save(make_state("new"), tmp_path / "a.pth")
    (tmp_path / "map.json").write_text('{"x": 0, "y": 1, "z": 2}')
    result = _run(
        "convert", tmp_path / "a.pth", tmp_path / "b.pth", "--num-classes", 3, "--class-map", tmp_path / "map.json"
    )
    assert result.exit_code == 0 and "changed" not in result.stdout
    assert checkpoint.read(tmp_path / "b.pth").meta["dataset_meta"] == {"classes": ["x", "y", "z"]}


def test_a_plan_tells_the_changes(tmp_path: Path, named_file: Path, class_map: Path) -> None:
    options = ["--num-classes", 2, "--class-map", class_map, "--dry-run"]
    lines = _run("convert", named_file, tmp_path / "b.pth", *options).stdout.splitlines()
    assert sum("rows 0, 1 initialised of 3, seed 0" in line for line in lines) == 17
    assert lines[-1].startswith("PLANNED ") and ", 17 changed, " in lines[-1]
    data = json.loads(_run("convert", named_file, tmp_path / "b.pth", *options, "--json").stdout)
    (line,) = [line for line in data["ledger"] if line["target"] == BIAS]
    assert line["changes"] == ["rows 0, 1 initialised of 3, seed 0"] and data["notes"] == []
    assert data["options"]["class_map"] == '{"plate": "disc", "ring": null}'
    assert not (tmp_path / "b.pth").exists()


def test_duplicates_are_compared_before_they_are_rounded(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    state = make_state(duplicates=True)
    key = "decoder.aux_reg_branches.0.0.bias"
    state[key] = torch.nextafter(state[key], torch.tensor(9.0))
    torch.save(state, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "b.pth", "--dtype", "bf16")
    assert result.exit_code == 1 and "bit by bit but differs from it" in result.stderr


def test_training_of_as_many_classes_is_carried_over_whole(tmp_path: Path) -> None:
    """A number of classes that is not the variant's changes no row, so the optimizer's state goes along."""
    class_keys = registry.get("ddq_detr").class_keys
    legacy = stored_layout("tiny_r18", side="legacy").with_classes(class_keys, 5)
    state = {key: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for key, spec in legacy.tensors.items()}
    moments = {
        number: {"step": torch.tensor(3.0), "exp_avg": torch.full(legacy.tensors[key].shape, float(number))}
        for number, key in enumerate(legacy.parameters)
        if key not in legacy.frozen
    }
    groups = [{"lr": 0.1, "params": [number]} for number in range(len(legacy.parameters))]
    source, out = tmp_path / "five.pth", tmp_path / "out.pth"
    torch.save({"state_dict": state, "optimizer": {"state": moments, "param_groups": groups}, "meta": {}}, source)
    result = _run("convert", source, out, "--num-classes", 5, "--keep", "all")
    assert result.exit_code == 0 and " with message_hub, optimizer" in result.stdout, result.output
    saved = torch.load(out, weights_only=True)
    new = stored_layout("tiny_r18").with_classes(class_keys, 5)
    trained = [key for key in new.parameters if key not in new.frozen]
    number = trained.index("bbox_head.aux_cls_branches.3.bias")
    before = legacy.parameters.index("bbox_head.cls_branches.4.bias")
    assert torch.equal(saved["optimizer"]["state"][number]["exp_avg"], torch.full((5,), float(before)))
    assert _run("verify", out, "--source", source).exit_code == 0
