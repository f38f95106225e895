"""The manifest says what was done, and `ddq-convert verify` finds whatever is not as it says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from converters.cli.main import cli
from converters.reading import checkpoint
from converters.writing import manifest
from tests.models import mapping as mapping_of
from tests.models import variants as variants_of

REPO = Path(__file__).resolve().parents[2]
StateDict = dict[str, Tensor]
KEY = "level_embed"
FORMS = ["n.pth", "n.safetensors", "sharded"]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _convert(source: Path, folder: Path, form: str, *options: str) -> Path:
    """Convert into `folder`; return the file to verify."""
    path = folder / ("n.safetensors" if form == "sharded" else form)
    split = ("--shard-size", "2MB") if form == "sharded" else ()
    done = _run("convert", source, path, *split, *options)
    assert done.exit_code == 0, done.stderr
    return path


def _files(path: Path) -> list[Path]:
    """Name the files that `path` was written to, without the manifest beside it."""
    return sorted(file for file in path.parent.iterdir() if file.name.startswith("n") and "manifest" not in file.name)


def _side(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


def _assert_fails(message: str, *args: object) -> None:
    result = _run("verify", *args)
    assert result.exit_code == 1 and result.stdout == "", result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: "), result.stderr
    assert message in result.stderr, result.stderr


def _flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.fixture
def source(tmp_path: Path, legacy_file: Path) -> Path:
    """Return the legacy checkpoint, in a folder of its own."""
    (tmp_path / "src").mkdir()
    return legacy_file.rename(tmp_path / "src" / legacy_file.name)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to", ["new", "legacy"])
def test_a_converted_file_verifies(tmp_path: Path, source: Path, form: str, to: str) -> None:
    path = _convert(source, tmp_path, form, "--to", to)
    alone = _run("verify", path)
    assert alone.exit_code == 0 and alone.stderr == ""
    assert alone.stdout.startswith("VERIFIED 308 tensors of ") and "legacy.pth" in alone.stdout
    both = _run("verify", path, "--source", source)
    assert both.exit_code == 0 and both.stdout.endswith(f"the same conversion of {source} gives the same\n")
    assert _run("verify", path, "-q").stdout == ""
    data = json.loads(_run("verify", path, "--source", source, "--json").stdout)
    assert (data["verified"], data["tensors"], data["left_out"]) == (True, 308, 18)


def test_an_index_is_verified_by_its_own_name_too(tmp_path: Path, source: Path) -> None:
    index = _convert(source, tmp_path, "sharded").with_name("n.safetensors.index.json")
    assert _run("verify", index).exit_code == 0


def test_files_may_be_renamed(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    path.rename(tmp_path / "m.pth")
    _side(path).rename(tmp_path / "m.pth.manifest.json")
    source.rename(tmp_path / "src" / "other.pth")
    assert _run("verify", tmp_path / "m.pth", "--source", tmp_path / "src" / "other.pth").exit_code == 0


@pytest.mark.parametrize("form", FORMS)
def test_the_manifest_says_what_was_done(tmp_path: Path, source: Path, form: str) -> None:
    path = _convert(source, tmp_path, form, "--to", "new")
    told = json.loads(_side(path).read_text())
    data = source.read_bytes()
    assert told["source"] == [
        {"name": "legacy.pth", "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "of": "file"},
    ]
    assert [file["name"] for file in told["files"]] == [file.name for file in _files(path)]
    for file in told["files"]:
        data = (tmp_path / file["name"]).read_bytes()
        assert file["size"] == len(data) and file["of"] == (
            "header" if ".safetensors" in file["name"][-12:] else "file"
        )
        hashed = data if file["of"] == "file" else data[: 8 + int.from_bytes(data[:8], "little")]
        assert file["sha256"] == hashlib.sha256(hashed).hexdigest()
    index = path if path.exists() else path.with_name(f"{path.name}.index.json")
    held = checkpoint.read(index).to_torch()
    assert [line["target"] for line in told["tensors"]] == sorted(held)
    original = torch.load(source, weights_only=True)["state_dict"]
    for line in told["tensors"]:
        tensor = held[line["target"]]
        assert line["sha256"] == hashlib.sha256(original[line["source"]].numpy().tobytes()).hexdigest()
        assert (line["dtype"], line["shape"]) == (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
        assert told["rules"][line["rule"]].startswith(line["action"])
    renamed = next(line for line in told["tensors"] if line["target"] == "bbox_head.aux_cls_branches.3.bias")
    assert renamed["source"] == "bbox_head.cls_branches.4.bias" and renamed["action"] == "rename"
    assert told["rules"][renamed["rule"]] == "rename bbox_head.cls_branches.4.* -> bbox_head.aux_cls_branches.3.*"
    assert len(told["left_out"]) == 18 and "saves it twice" in told["left_out"][0]["reason"]
    embedded = json.loads(checkpoint.read(index).meta["ddq_manifest"])
    assert {name: told[name] for name in embedded} == embedded


@pytest.mark.parametrize("form", FORMS)
def test_same_input_same_bytes(tmp_path: Path, source: Path, form: str) -> None:
    def convert(folder: Path, seed: str) -> dict[str, bytes]:
        folder.mkdir()
        name = "n.safetensors" if form == "sharded" else form
        split = ["--shard-size", "2MB"] if form == "sharded" else []
        environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-m", "converters", "convert", str(source), str(folder / name), "-q", *split]
        subprocess.run(command, env=environment, check=True)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert convert(tmp_path / "one", "1") == convert(tmp_path / "two", "2")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["output", "side"])
def test_every_flipped_bit_is_told(tmp_path: Path, source: Path, form: str, what: str) -> None:
    path = _convert(source, tmp_path, form)
    files = _files(path) if what == "output" else [_side(path)]
    for number in range(8):
        file = files[number % len(files)]
        whole = file.read_bytes()
        # spread over the file, its first and its last byte included
        _flip(file, number * (len(whole) - 1) // 7, number)
        _assert_fails("", path)
        file.write_bytes(whole)
    assert _run("verify", path).exit_code == 0


def _edit(path: Path, change: Callable[[StateDict], None]) -> None:
    """Change the tensors of a file and leave its metadata as they are."""
    if path.suffix == ".pth":
        content = torch.load(path, weights_only=True)
        change(content["state_dict"])
        torch.save(content, path)
    else:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        state = load_file(path)
        change(state)
        save_file(state, path, metadata)


def _nudge(state: StateDict) -> None:
    state[KEY] = state[KEY] + 1e-6


def _remove(state: StateDict) -> None:
    del state[KEY]


def _add(state: StateDict) -> None:
    state["extra"] = torch.ones(1)


def _rename(state: StateDict) -> None:
    state["elsewhere"] = state.pop(KEY)


def _reshape(state: StateDict) -> None:
    state[KEY] = state[KEY].t().contiguous()


def _retype(state: StateDict) -> None:
    state[KEY] = state[KEY].view(torch.int32)


@pytest.mark.parametrize("name", ["n.pth", "n.safetensors"])
@pytest.mark.parametrize(
    "change, message",
    [
        (_nudge, "1 tensor(s) of `{path}` do not have the recorded SHA-256: `level_embed`"),
        (_remove, "lacks 1 recorded tensor(s) (`level_embed`)"),
        (_add, "holds 1 that are not recorded (`extra`)"),
        (_rename, "lacks 1 recorded tensor(s) (`level_embed`) and holds 1 that are not recorded (`elsewhere`)"),
        (_reshape, "Tensor `level_embed` of `{path}` is float32 [64, 4], the manifest recorded float32 [4, 64]"),
        (_retype, "Tensor `level_embed` of `{path}` is int32 [4, 64], the manifest recorded float32 [4, 64]"),
    ],
)
def test_changed_tensors_are_named(
    tmp_path: Path, source: Path, name: str, change: Callable[[StateDict], None], message: str
) -> None:
    path = _convert(source, tmp_path, name)
    _edit(path, change)
    _assert_fails(message.format(path=path), path)


def test_a_shard_that_is_gone_is_told(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "sharded")
    (tmp_path / "n-00002-of-00003.safetensors").unlink()
    _assert_fails("n-00002-of-00003.safetensors", path)


def test_bytes_between_the_tensors_are_checked_too(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _flip(path, path.read_bytes().rindex(b"PK\x01\x02") + 12, 0)  # the time of a record, which nobody reads
    _assert_fails("though every tensor does: bytes between them were changed", path)


def test_changed_metadata_are_told(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    content = torch.load(path, weights_only=True)
    content["meta"]["variant"] = "another"
    torch.save(content, path)
    _assert_fails("The metadata of", path)
    content["meta"]["variant"] = "tiny_r18"
    torch.save({**content, "hook": 3}, path)
    _assert_fails("The metadata of", path)


def _forge(path: Path, change: Callable[[dict[str, Any]], None], *, inside: bool = True, beside: bool = True) -> None:
    """Edit the manifests as somebody would who knows how their digests are made."""
    told = json.loads(_side(path).read_text())
    change(told)
    for item in told["tensors"] + told["left_out"] + told["parts"]:
        item.update({name: tuple(value) for name, value in item.items() if isinstance(value, list)})
    content = {name: told[name] for name in manifest.Manifest.__dataclass_fields__}
    told["digest"] = manifest.digest_of(content)
    side = manifest.SideManifest(
        manifest.Manifest.from_dict(told), tuple(manifest.FileDigest(**file) for file in told["files"])
    )
    if inside:
        saved = torch.load(path, weights_only=True)
        saved["meta"]["ddq_manifest"] = side.manifest.to_json()
        torch.save(saved, path)
        data = path.read_bytes()
        forged = manifest.FileDigest(path.name, len(data), hashlib.sha256(data).hexdigest())
        side = manifest.SideManifest(side.manifest, (forged,))
    if beside:
        _side(path).write_text(side.to_json())


def _other_digest(told: dict[str, Any]) -> None:
    told["tensors"][0]["sha256"] = "0" * 64


def _other_rule(told: dict[str, Any]) -> None:
    told["tensors"][0]["rule"] += 1


def _other_source_key(told: dict[str, Any]) -> None:
    told["tensors"][0]["source"], told["tensors"][1]["source"] = (
        told["tensors"][1]["source"],
        told["tensors"][0]["source"],
    )


def _other_rule_text(told: dict[str, Any]) -> None:
    told["rules"][0] = "keep everything.**"


def _other_reason(told: dict[str, Any]) -> None:
    told["left_out"][0]["action"] = "unmapped"


def _fewer(told: dict[str, Any]) -> None:
    del told["tensors"][0]


def _other_version(told: dict[str, Any]) -> None:
    told["mapping_version"] = "0" * 16


def _other_variant(told: dict[str, Any]) -> None:
    told["variant"] = "tiny_1class"


def _no_variant(told: dict[str, Any]) -> None:
    told["variant"] = "huge"


def _no_such_option(told: dict[str, Any]) -> None:
    told["options"]["strip"] = "yes"


def _other_source(told: dict[str, Any]) -> None:
    told["source"][0]["sha256"] = "0" * 64


@pytest.mark.parametrize(
    "change, message",
    [
        (_other_digest, "do not have the recorded SHA-256: `backbone.bn1.bias`"),
        (_other_rule, "has `backbone.bn1.bias` under a rule that does not say so"),
        (_other_source_key, "under a rule that does not say so"),
        (_other_rule_text, "has other rules than its mapping version"),
        (_other_reason, "`decoder.aux_reg_branches.0.0.bias` under a rule that does not say so"),
        (_fewer, "holds 1 that are not recorded (`backbone.bn1.bias`)"),
        (_other_version, "was made with other rules (mapping 0000000000000000"),
        (_other_variant, "lacks 198 recorded tensor(s)"),
        (_no_variant, "has no variant `huge`"),
        (_no_such_option, "Option `strip` is 'yes', which it cannot be."),
    ],
)
def test_a_well_forged_manifest_is_told(
    tmp_path: Path, source: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _forge(path, change)
    _assert_fails(message, path)


def test_forging_nothing_verifies(tmp_path: Path, source: Path) -> None:
    """Or the tests that forge would show nothing."""
    path = _convert(source, tmp_path, "n.pth")
    _forge(path, lambda told: None)
    assert _run("verify", path, "--source", source).exit_code == 0


def test_a_forged_origin_is_told_by_the_source(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _forge(path, _other_source)
    assert _run("verify", path).exit_code == 0
    _assert_fails("is not the file that was converted", path, "--source", source)


def test_a_forged_shape_is_told_by_the_layout(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    content = torch.load(path, weights_only=True)
    content["state_dict"][KEY] = content["state_dict"][KEY].reshape(64, 4)
    torch.save(content, path)
    _forge(path, lambda told: next(line for line in told["tensors"] if line["target"] == KEY).update(shape=(64, 4)))
    _assert_fails(
        f"Tensor `{KEY}` of `{path}` is float32 [64, 4], the layout of ddq_detr tiny_r18 has float32 [4, 64].", path
    )


def test_a_conversion_that_cannot_be_repeated_is_told(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _forge(path, lambda told: told["options"].update(key="nowhere"))
    assert _run("verify", path).exit_code == 0
    _assert_fails(f"The conversion of `{source}` cannot be repeated: ", path, "--source", source)


@pytest.mark.parametrize("edit", [lambda text: text + " ", lambda text: text.replace("\n", "", 1)])
def test_a_manifest_that_is_spelled_otherwise_within_the_file_is_told(
    tmp_path: Path, source: Path, edit: Callable[[str], str]
) -> None:
    path = _convert(source, tmp_path, "n.pth")
    content = torch.load(path, weights_only=True)
    content["meta"]["ddq_manifest"] = edit(content["meta"]["ddq_manifest"])
    torch.save(content, path)
    _assert_fails(f"Cannot trust the manifest inside `{path}`: {manifest.EDITED}.", path)


class Hook:
    """What a training may add to a file."""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            dict(hook=Hook()),
            "holds an object of tests.converters.test_converters_verify.Hook at `hook`, which was not written.",
        ),
        (dict(hooks=[3, dict(one=Hook())]), "at `hooks.1.one`, which was not written."),
        (
            dict(log="x" * 600_000),
            "is not what was written: its metadata unfold to more than 500000 items and characters.",
        ),
    ],
)
def test_what_no_conversion_writes_is_told(tmp_path: Path, source: Path, more: dict[str, Any], message: str) -> None:
    path = _convert(source, tmp_path, "n.pth")
    torch.save({**torch.load(path, weights_only=True), **more}, path)
    _assert_fails(message, path)


def test_a_manifest_with_more_than_the_other_is_told(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    count = len(json.loads(_side(path).read_text())["rules"])
    _forge(path, lambda told: told["rules"].append("keep more.*"), inside=False)
    _assert_fails(f"they differ in rules ({count + 1} against {count}).", path)


@pytest.mark.parametrize("inside", [True, False])
def test_the_two_manifests_must_agree(tmp_path: Path, source: Path, inside: bool) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _forge(path, _other_source, inside=inside, beside=not inside)
    _assert_fails("is another one than that beside it: they differ in source", path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"action": "rename"', '"action": "keep"', 1),
        lambda text: text.replace("legacy.pth", "other.pth"),
        lambda text: text.replace('"version": 1', '"version": 2'),
        lambda text: text.replace("ddq-manifest", "other-manifest", 1),
        lambda text: text.replace("n.pth", "m.pth"),
        lambda text: text + "\n",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "",
        lambda text: "\udcff",
        lambda text: '{"format": "ddq-manifest", "version": 1, "files": {}}',
        lambda text: text.replace('"shape"', '"form"'),
        lambda text: "[" * 100_000,
    ],
)
def test_an_edited_manifest_is_told(tmp_path: Path, source: Path, edit: Callable[[str], str]) -> None:
    path = _convert(source, tmp_path, "n.pth")
    _side(path).write_text(edit(_side(path).read_text()), errors="surrogateescape")
    _assert_fails("Cannot trust the manifest", path)


_WRONG: list[Callable[[dict[str, Any]], None]] = [
    lambda told: told.update(options=None),
    lambda told: told.update(options=[]),
    lambda told: told["options"].update(dtype="zzz"),
    lambda told: told["options"].update(keep="zzz"),
    lambda told: told["options"].update(num_classes="3"),
    lambda told: told.update(family=["ddq_detr"]),
    lambda told: told.update(variant={}),
    lambda told: told.update(source_layout={}),
    lambda told: told.update(target_layout="other"),
    lambda told: told.update(source=[]),
    lambda told: told.update(rules=[1]),
    lambda told: told["tensors"][0].update(target={"a": 1}),
    lambda told: told["tensors"][0].update(source=[]),
    lambda told: told["tensors"][0].update(shape=[[1]]),
    lambda told: told["tensors"][0].update(rule="0"),
    lambda told: told["tensors"].append(told["tensors"][0]),
    lambda told: told["left_out"][0].update(source=3),
    lambda told: told.update(parts=[{"path": {}, "source": None, "dtype": "float32", "shape": [], "sha256": ""}]),
]


@pytest.mark.parametrize("change", _WRONG)
def test_a_manifest_of_other_kinds_of_values_is_one_line(
    tmp_path: Path, source: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = _convert(source, tmp_path, "n.pth")
    content, side = torch.load(path, weights_only=True), json.loads(_side(path).read_text())
    inside = json.loads(content["meta"]["ddq_manifest"])
    for told in (inside, side):
        change(told)
        told["digest"] = manifest.digest_of({name: told[name] for name in manifest.Manifest.__dataclass_fields__})
    content["meta"]["ddq_manifest"] = manifest._lined(inside)
    torch.save(content, path)
    _side(path).write_text(manifest._lined(side))
    for command in (["verify", path], ["convert", path, tmp_path / "back.pth", "--to", "legacy"]):
        result = _run(*command)
        assert result.exit_code in (1, 2) or command[0] == "convert", result.output
        assert result.exit_code in (0, 1, 2) and len(result.stderr.splitlines()) <= 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_files_without_a_manifest(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.pth")
    side = _side(path).read_text()
    _side(path).unlink()
    _assert_fails("There is no manifest", path)
    _side(path).write_text(side)
    content = torch.load(path, weights_only=True)
    del content["meta"]["ddq_manifest"]
    torch.save(content, path)
    _assert_fails("holds no manifest", path)


@pytest.mark.parametrize("name", ["gone.pth", "folder"])
def test_nothing_to_verify(tmp_path: Path, source: Path, name: str) -> None:
    path = _convert(source, tmp_path, "n.pth")
    (tmp_path / "folder").mkdir()
    for arguments in ([tmp_path / name], [path, "--source", tmp_path / name]):
        result = _run("verify", *arguments)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1


def test_another_source_is_told(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.safetensors")
    _flip(source, source.stat().st_size // 2, 3)
    _assert_fails("is not the file that was converted", path, "--source", source)


def test_a_conversion_that_comes_out_otherwise_is_told(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _convert(source, tmp_path, "n.pth", "--allow-unmapped")
    _forge(path, lambda told: told["options"].update(strip=False, to="legacy"))
    _assert_fails("The same conversion of", path, "--source", source)
    _forge(path, lambda told: told["options"].update(to="new", nonsense=1))
    _assert_fails("Option `nonsense` is unknown", path, "--source", source)


def test_a_file_without_an_embedded_manifest_is_verified_if_it_was_stripped(tmp_path: Path, source: Path) -> None:
    path = _convert(source, tmp_path, "n.safetensors", "--strip")
    assert "ddq_manifest" not in checkpoint.read(path).meta
    assert _run("verify", path, "--source", source).exit_code == 0
    _edit(path, _nudge)
    _assert_fails("do not have the recorded SHA-256: `level_embed`", path)


def test_what_was_left_out_for_want_of_a_rule_stands_in_the_manifest(
    tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    torch.save(make_state() | {"extra.weight": torch.ones(1)}, tmp_path / "a.pth")
    path = _convert(tmp_path / "a.pth", tmp_path, "n.pth", "--allow-unmapped")
    assert json.loads(_side(path).read_text())["left_out"] == [
        {
            "action": "unmapped",
            "reason": "no rule matched, and that was allowed",
            "rule": None,
            "source": "extra.weight",
        }
    ]
    assert _run("verify", path, "--source", tmp_path / "a.pth").exit_code == 0


def test_the_mapping_version_follows_the_rules() -> None:
    versions = {
        manifest.mapping_version(mapping_of("ddq_detr", variant)) for variant in variants_of("ddq_detr")
    }
    assert len(versions) == 2  # of 3 and of 6 decoder layers
    tiny = mapping_of("ddq_detr", "tiny_r18")
    assert manifest.mapping_version(tiny) != manifest.mapping_version(tiny.inverse())
