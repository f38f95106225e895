"""State dicts under any key and behind any prefix: found, told, stripped, accounted for; or asked about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from converters.cli.main import cli
from converters.errors import CheckpointError
from converters.reading import checkpoint, nesting
from tests.converters.crafted import found, mapped, tensor, torch_zip, whole
from tests.models import layout_of as stored_layout

StateDict = dict[str, Tensor]
Make = Callable[[StateDict], Any]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _begin(prefix: str, state: StateDict) -> StateDict:
    return {prefix + key: tensor for key, tensor in state.items()}


def _within(name: str, after: str, state: StateDict) -> StateDict:
    """Put a name into the keys, after a module's."""
    return {key.replace(f"{after}.", f"{after}.{name}.", 1): tensor for key, tensor in state.items()}


def _under(*path: str) -> Make:
    def make(state: StateDict) -> Any:
        for name in reversed(path):
            state = {name: state}
        return state

    return make


# how a file wraps the weights, and what is told of it
WRAPPED: dict[str, tuple[Make, str]] = {
    "module": (lambda s: {"state_dict": _begin("module.", s)}, "all 308 keys begin with `module.`"),
    "compiled": (lambda s: {"state_dict": _begin("_orig_mod.", s)}, "all 308 keys begin with `_orig_mod.`"),
    "lightning": (lambda s: {"state_dict": _begin("model.", s)}, "all 308 keys begin with `model.`"),
    "net": (lambda s: _begin("net.", s), "all 308 keys begin with `net.`"),
    "any prefix": (lambda s: _begin("my_best.detector_2.", s), "all 308 keys begin with `my_best.detector_2.`"),
    "deepspeed in lightning": (lambda s: _begin("_forward_module.model.", s), "begin with `_forward_module.model.`"),
    "twice": (lambda s: {"state_dict": _begin("module.module.", s)}, "all 308 keys begin with `module.module.`"),
    "mixed": (lambda s: {"state_dict": _begin("module._orig_mod.model.", s)}, "begin with `module._orig_mod.model.`"),
    "mixed the other way": (lambda s: _begin("model.module._orig_mod.", s), "begin with `model.module._orig_mod.`"),
    "a compiled backbone": (lambda s: _within("_orig_mod", "backbone", s), "have `_orig_mod` in them"),
    "fsdp": (
        lambda s: _begin("_fsdp_wrapped_module.", _within("_fsdp_wrapped_module", "encoder", s)),
        "have `_fsdp_wrapped_module` in them",
    ),
    "checkpointed layers": (
        lambda s: _begin("model.", _within("_checkpoint_wrapped_module", "encoder.layers.0", s)),
        "have `_checkpoint_wrapped_module` in them",
    ),
    "half of it": (
        lambda s: {f"module.{key}" if key.startswith("backbone.") else key: value for key, value in s.items()},
        "120 of 308 keys begin with `module.`",
    ),
    "half of it, of no wrapper of torch": (
        lambda s: {key if key.startswith("backbone.") else f"model.{key}": value for key, value in s.items()},
        "188 of 308 keys begin with `model.`",
    ),
    "model": (_under("model"), "under `model`"),
    "model_state_dict": (
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "loss": 1.0},
        "under `model_state_dict`",
    ),
    "deepspeed": (lambda s: {"module": s, "optimizer": None, "ds_version": "0.14"}, "under `module`"),
    "any key": (_under("weights of tuesday"), "under `weights of tuesday`"),
    "a key with a dot": (_under("v1.0"), "under `v1.0`"),
    "nested": (_under("checkpoint", "model"), "under `checkpoint.model`"),
    "nested three deep": (_under("a", "b", "c"), "under `a.b.c`"),
    "nested with a prefix": (
        lambda s: {"model": {"state_dict": _begin("module.", s), "epoch": 3}},
        "under `model.state_dict`; all 308 keys begin with `module.`",
    ),
    "among other things": (lambda s: {**_begin("model.", s), "epoch": 3, "name": "x"}, "begin with `model.`"),
    "beside other dicts": (
        lambda s: {"teacher_cfg": {"x": torch.ones(2)}, "net": s, "optimizer": {"state": {0: {"m": torch.ones(3)}}}},
        "under `net`",
    ),
    "the same twice": (lambda s: {"model": s, "best": s}, "under `model`"),
    "the same tensors twice": (lambda s: {"model": s, "best": dict(s)}, "under `model`"),
    "beside a part of it": (lambda s: {"old": dict(list(s.items())[:300]), "net": s}, "under `net`"),
    "averaged by torch": (
        lambda s: {"state_dict": {"n_averaged": torch.tensor(7), **_begin("module.", s)}},
        "begin with `module.`",
    ),
}


@pytest.fixture(scope="module")
def states() -> dict[str, StateDict]:

    def make(side: str) -> StateDict:
        generator = torch.Generator().manual_seed(7)
        specs = stored_layout("tiny_r18", side=side).tensors.items()
        whole = {key: torch.randint(0, 1000, spec.shape, generator=generator) for key, spec in specs}
        return {key: whole[key] if spec.dtype == "int64" else torch.randn(spec.shape) for key, spec in specs}

    return {"legacy": make("legacy"), "new": make("new")}


@pytest.mark.parametrize("form, side", [(form, ("legacy", "new")[n % 2]) for n, form in enumerate(WRAPPED)])
def test_wrapped_weights_are_found_told_and_converted(
    states: dict[str, StateDict], tmp_path: Path, form: str, side: str
) -> None:
    make, told = WRAPPED[form]
    path, out = tmp_path / "a.pth", tmp_path / "out.safetensors"
    torch.save(make(states[side]), path)
    result = _run("convert", path, out, "--to", side)
    assert result.exit_code == 0, result.output
    notes = " ".join(result.stderr.split())
    assert told in notes.replace("The source has its weights ", ""), notes
    found = load_file(out)
    assert found.keys() == states[side].keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in states[side].items())
    verified = _run("verify", out, "--source", path)
    assert verified.exit_code == 0, verified.output
    assert told in " ".join(_run("inspect", path).stdout.split())


def test_the_account_has_the_keys_of_the_file(states: dict[str, StateDict], tmp_path: Path) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    torch.save({"net": _begin("module._orig_mod.", states["legacy"])}, path)
    result = _run("convert", path, out, "-vv", "--json")
    renamed = "rename module._orig_mod.bbox_head.cls_branches.4.bias -> bbox_head.aux_cls_branches.3.bias"
    assert renamed in result.stderr.splitlines()
    data = json.loads(result.stdout)
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    for sources in ([line["source"] for line in data["ledger"]], [line["source"] for line in manifest["tensors"]]):
        assert len(sources) == 308 and all(source.startswith("module._orig_mod.") for source in sources)
    assert manifest["options"]["key"] == "net" and manifest["options"]["prefix"] == "module._orig_mod."
    assert _run("inspect", path, "--json").exit_code == 0


def test_what_stands_beside_the_weights_goes_on(states: dict[str, StateDict], tmp_path: Path) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    inner = {"state_dict": states["new"], "meta": {"dataset_meta": {"classes": ["a", "b", "c"]}}, "step": 4}
    torch.save({"checkpoint": inner, "step": 5, "note": "x"}, path)
    result = _run("convert", path, out)
    assert result.exit_code == 0, result.output
    made = torch.load(out, weights_only=True)
    assert made["meta"]["dataset_meta"] == {"classes": ["a", "b", "c"]}
    assert (made["step"], made["outer step"], made["note"]) == (4, 5, "x")


# what a file holds, options, and the sets that are to choose from
UNCLEAR: dict[str, tuple[Make, tuple[str, ...]]] = {
    "two keys": (
        lambda s: {"net": s, "best": {k: v + 1 for k, v in s.items()}},
        ("fit equally well", "--key net", "--key best"),
    ),
    "a student and its teacher": (
        lambda s: {"student": s, "teacher": {k: v + 1 for k, v in s.items()}},
        ("fit equally well", "--key student", "--key teacher"),
    ),
    "two prefixes": (
        lambda s: {**_begin("first.", s), **_begin("second.", {k: v + 1 for k, v in s.items()})},
        ("fit equally well", "--prefix first.", "--prefix second."),
    ),
    "two of no family": (
        lambda s: {"encoder": {"w": torch.ones(1)}, "decoder": {"w": torch.ones(2)}},
        ("none is of a known family", "--key encoder", "--key decoder"),
    ),
}


@pytest.mark.parametrize("command", ["inspect", "convert"])
@pytest.mark.parametrize("form", UNCLEAR)
def test_a_choice_is_left_to_the_user(states: dict[str, StateDict], tmp_path: Path, form: str, command: str) -> None:
    make, texts = UNCLEAR[form]
    path = tmp_path / "a.pth"
    torch.save(make(states["new"]), path)
    result = _run(command, path, *([tmp_path / "o.pth"] if command == "convert" else []))
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
    assert all(text in result.stderr for text in texts), result.stderr
    assert list(tmp_path.iterdir()) == [path]


# what a file holds beside the wanted weights, and how to ask for these
ASKED: dict[str, tuple[Make, list[str]]] = {
    "--key": (lambda s: {"best": {k: v + 1 for k, v in s.items()}, "net": s}, ["--key", "net"]),
    "--key, nested": (lambda s: {"a": {"b": s}, "c": {k: v + 1 for k, v in s.items()}}, ["--key", "a.b"]),
    "--key of what is not plain": (lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "n": s}, ["--key", "n"]),
    "--key, the top": (lambda s: {**s, "old": {k: v + 1 for k, v in s.items()}}, ["--key", ""]),
    "--prefix": (
        lambda s: {**_begin("student.", s), **_begin("x.", {k: v + 1 for k, v in s.items()})},
        ["--prefix", "student."],
    ),
    "--prefix without its dot": (lambda s: {**_begin("student.", s), "loss.w": torch.ones(1)}, ["--prefix", "student"]),
    "both": (
        lambda s: {"a": _begin("m.", s), "b": _begin("m.", {k: v + 1 for k, v in s.items()})},
        ["--key", "a", "--prefix", "m."],
    ),
}


@pytest.mark.parametrize("form", ASKED)
def test_key_and_prefix_choose(states: dict[str, StateDict], tmp_path: Path, form: str) -> None:
    make, options = ASKED[form]
    path, out = tmp_path / "a.pth", tmp_path / "out.safetensors"
    torch.save(make(states["legacy"]), path)
    result = _run("convert", path, out, "--to", "legacy", *options)
    assert result.exit_code == 0, result.output
    found = load_file(out)
    assert all(torch.equal(found[key], tensor) for key, tensor in states["legacy"].items())
    assert _run("verify", out, "--source", path).exit_code == 0
    seen = json.loads(_run("inspect", path, "--json", *options).stdout)
    assert seen["tensors"] == 308 and seen["detection"]["variant"] == "tiny_r18"
    assert _run("diff", path, out, *options).stdout.splitlines()[-1] == "EQUAL 308 tensors"


@pytest.mark.parametrize(("content", "options"), [("net", ["--key", "net"]), ("model", [])])
def test_what_stands_where_weights_are_written_is_kept_under_another_name(
    states: dict[str, StateDict], tmp_path: Path, content: str, options: list[str]
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    other = {key: value + 1 for key, value in states["new"].items()} if options else {"x": torch.ones(1)}
    torch.save({"state_dict": other, content: states["new"]}, path)
    result = _run("convert", path, out, "-v", *options)
    assert result.exit_code == 0 and "kept state_dict: as it was, now `source state_dict`" in result.stderr, result
    made = torch.load(out, weights_only=True)
    for name, tensors in (("state_dict", states["new"]), ("source state_dict", other)):
        assert made[name].keys() == tensors.keys()
        assert all(torch.equal(made[name][key], tensor) for key, tensor in tensors.items())
    assert _run("verify", out, "--source", path).exit_code == 0


def test_keys_that_stand_twice_with_a_prefix_and_without_are_named(
    states: dict[str, StateDict], tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {**_begin("module.", states["new"]), "level_embed": torch.ones(4, 64)}}, path)
    result = _run("inspect", path)
    assert result.exit_code == 2
    assert "1 keys stand in it twice, with a prefix and without: `level_embed`; choose with --prefix" in result.stderr


@pytest.mark.parametrize("prefix", ["module.", "best."])
def test_two_sets_with_a_prefix_and_without(states: dict[str, StateDict], tmp_path: Path, prefix: str) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    other = {key: value + 1 for key, value in states["new"].items()}
    torch.save({**states["new"], **_begin(prefix, other)}, path)
    refused = _run("convert", path, out)
    assert refused.exit_code == 1 and f"pass --prefix {prefix} to convert those alone" in refused.stderr
    for options, wanted in ((["--prefix", prefix], other), (["--allow-unmapped"], states["new"])):
        assert _run("convert", path, out, "--force", *options).exit_code == 0
        made = torch.load(out, weights_only=True)["state_dict"]
        assert made.keys() == wanted.keys() and all(torch.equal(made[key], wanted[key]) for key in wanted)
        verified = _run("verify", out, "--source", path)
        assert verified.exit_code == 0, verified.output


def test_another_set_of_weights_is_told(states: dict[str, StateDict], tmp_path: Path) -> None:
    torch.save({"state_dict": states["legacy"], "best": states["legacy"]}, tmp_path / "a.pth")
    for command in (["inspect"], ["convert"]):
        result = _run(*command, tmp_path / "a.pth", *([tmp_path / "o.pth"] if command == ["convert"] else []))
        assert "`best` holds another set of such weights, which is not converted" in " ".join(result.output.split())


def test_keys_without_the_prefix_are_accounted_for(states: dict[str, StateDict], tmp_path: Path) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    torch.save({**_begin("student.", states["new"]), "loss.w": torch.ones(1)}, path)
    refused = _run("convert", path, out)
    assert refused.exit_code == 1 and "do not begin with `student.`" in refused.stderr, refused.stderr
    assert "`loss.w`; pass --prefix student. to leave them out" in refused.stderr
    result = _run("convert", path, out, "--prefix", "student.", "-v")
    assert "unmapped loss.w" in result.stderr.splitlines() and "1 unmapped left out" in result.stdout, result.output
    assert "1 keys do not begin so" in " ".join(result.stderr.split())
    assert _run("verify", out, "--source", path).exit_code == 0


@pytest.mark.parametrize(
    "options, text",
    [
        (["--key", "nothing"], "it holds no dict under `nothing`, the key that was asked for; there are `net`"),
        (["--prefix", "nothing."], "no key of its state dict begins with `nothing.`; its keys are `level_embed`"),
        (["--key", "net", "--prefix", "x."], "no key of its state dict begins with `x.`"),
    ],
)
def test_what_is_asked_for_and_not_there(
    states: dict[str, StateDict], tmp_path: Path, options: list[str], text: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"net": states["new"]}, path)
    for command in (["inspect", path], ["convert", path, tmp_path / "o.pth"], ["diff", path, path]):
        result = _run(*command, *options)
        assert result.exit_code == 2 and text in result.stderr, result.output


def test_each_file_of_a_diff_has_its_own_wrapping(states: dict[str, StateDict], tmp_path: Path) -> None:
    other = {key: tensor + 1 for key, tensor in states["new"].items()}
    torch.save({"p": states["new"], "q": other}, tmp_path / "a.pth")
    torch.save({"r": other, "s": states["new"]}, tmp_path / "b.pth")
    files = [tmp_path / "a.pth", tmp_path / "b.pth"]
    assert _run("diff", *files, "--key", "p", "--key", "s").exit_code == 0
    assert _run("diff", *files, "--key", "q", "--key", "s").exit_code == 1


def test_safetensors_with_a_prefix(states: dict[str, StateDict], tmp_path: Path) -> None:
    save_file(_begin("model.", states["new"]), tmp_path / "a.safetensors")
    result = _run("convert", tmp_path / "a.safetensors", tmp_path / "o.safetensors")
    assert result.exit_code == 0 and "begin with `model.`" in " ".join(result.stderr.split()), result.output
    assert _run("verify", tmp_path / "o.safetensors", "--source", tmp_path / "a.safetensors").exit_code == 0


@pytest.mark.parametrize(
    "content",
    [
        {"net": {"model.0.conv.weight": torch.ones(2), "model.1.bias": torch.ones(1)}},
        {"state_dict": {"encoder.weight": torch.ones(2)}, "ema": {"encoder.weight": torch.ones(2)}},
        {"a": torch.ones(2), "b": torch.ones(1)},
        {"model": {"x": torch.ones(2)}, "optimizer": {"param": {"x": torch.ones(2)}}},
    ],
)
def test_models_that_are_not_known_are_still_described(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    result = _run("inspect", tmp_path / "a.pth")
    assert result.exit_code == 0 and "layout        unknown" in result.stdout, result.output


class Model(torch.nn.Module):
    """A detector of somebody."""


# what is not a state dict, and what is said of it
NO_STATE_DICT: dict[str, tuple[Any, str]] = {
    "a whole model under a key": ({"model": Model()}, r"its `model` is a whole object made by .*Model.*state_dict\(\)"),
    "a whole model": (Model(), r"its top level is made by .*Model, not a dict; save the model's state_dict\(\) alone"),
    "arrays of numpy": ({"model": {"x": torch.ones(1).numpy()}}, r"`x` is an array of numpy \(torch.from_numpy makes "),
    "an empty key": ({"": {"x": torch.ones(1)}}, "its top level is not a state dict: `` is of type dict"),
    "fsdp's own parameters": (
        {"model": {"_fsdp_wrapped_module._flat_param": torch.ones(4)}},
        "one process's part of the weights.*get_model_state_dict.*full_state_dict=True",
    ),
    "deepspeed with zero 3": (
        {"module": {"a": torch.empty(0), "b": torch.empty(0)}, "ds_version": "0.15"},
        "2 of its 2 tensors are empty, as DeepSpeed saves them with ZeRO 3.*zero_to_fp32.py",
    ),
    "deepspeed's optimizer": (
        {"optimizer_state_dict": {"groups": [torch.ones(2)]}, "ds_version": "0.15"},
        "DeepSpeed's state of the optimizer.*zero_to_fp32.py",
    ),
}


@pytest.mark.parametrize("form", NO_STATE_DICT)
def test_what_is_no_state_dict(tmp_path: Path, form: str) -> None:
    content, message = NO_STATE_DICT[form]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read(tmp_path / "a.pth")


def test_unknown_layouts_show_keys_and_what_is_missing(tmp_path: Path) -> None:
    torch.save({f"layer.{i}.weight": torch.ones(1) for i in range(9)}, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "o.pth")
    assert result.exit_code == 1
    assert "such as `layer.0.weight`, `layer.4.weight`, `layer.8.weight`" in result.stderr
    assert "ddq_detr, " in result.stderr and "it has none of the keys that tell them" in result.stderr
    torch.save({"bbox_head.aux_cls_branches.0.weight": torch.ones(1)}, tmp_path / "b.pth")
    result = _run("convert", tmp_path / "b.pth", tmp_path / "o.pth")
    assert "of ddq_detr, missing are `decoder.norm.weight`" in result.stderr


def test_a_search_ends_soon(tmp_path: Path) -> None:
    """Dicts that hold each other, or the same one many times, are searched once."""
    inner: dict[str, Any] = {"x": torch.ones(1)}
    for _ in range(40):
        inner = {"a": inner, "b": inner, "c": inner}
    torch.save({"deep": inner, "wide": {str(i): {"y": i} for i in range(5000)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError):
        checkpoint.read(tmp_path / "a.pth")


def test_a_search_ends_with_more_keys_than_a_model_has() -> None:
    many = {number: None for number in range(500_000)}
    assert [path for path, _ in nesting.dicts_in({"a": {}, "b": {}})] == [(), ("a",), ("b",)]
    assert [path for path, _ in nesting.dicts_in({"a": many, "b": {}})] == [()]


@pytest.mark.parametrize(
    "kind", ["torch.distributed._shard.sharded_tensor.api.ShardedTensor", "torch.distributed.tensor.DTensor"]
)
def test_a_process_part_of_a_tensor_says_how_to_save_it_whole(tmp_path: Path, kind: str) -> None:
    part = found(kind) + b")\x81}X\x01\x00\x00\x00aK\x01sb"
    (tmp_path / "a.pth").write_bytes(torch_zip(whole(mapped(x=tensor(), y=part))))
    with pytest.raises(
        CheckpointError, match=rf"`y` is one process's part of a tensor \({kind}\); save it whole, with get_model_state"
    ):
        checkpoint.read(tmp_path / "a.pth")


def test_reading_runs_nothing(tmp_path: Path, states: dict[str, StateDict]) -> None:
    """Hooks of whoever looks at keys and dicts stay inert wherever they stand."""
    proof = tmp_path / "ran"

    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f"open({str(proof)!r}, 'w')",)

    torch.save({"net": {"state_dict": states["new"]}, "x": {"model": Exploit()}}, tmp_path / "a.pth")
    assert len(checkpoint.read(tmp_path / "a.pth").state_dict) == 308 and not proof.exists()
