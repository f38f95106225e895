"""`ddq-convert` from the outside: output, one-line errors, exit codes, no leftovers."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

import converters
from converters.cli.main import cli
from converters.reading import checkpoint
from legacy_adapters.ground.packages import EXTRAS

REPO = Path(__file__).resolve().parents[2]
StateDict = dict[str, Tensor]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _python(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, env=environment, check=False, **kwargs
    )


def _assert_refused(result: Result, code: int, message: str, folder: Path, left: set[str]) -> None:
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], result.stderr
    assert result.stdout == ""
    assert {path.name for path in folder.iterdir()} == left


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_by_file(
    tmp_path: Path,
    legacy_file: Path,
    make_state: Callable[..., StateDict],
    assert_same: Callable[..., None],
    suffix: str,
) -> None:
    new, back = tmp_path / f"new{suffix}", tmp_path / f"back{suffix}"
    result = _run("convert", legacy_file, new)
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == f"CONVERTED 308 tensors: 300 kept, 8 renamed, 18 duplicates dropped -> {new}\n"
    assert _run("convert", new, back, "--to", "legacy").exit_code == 0
    assert_same(checkpoint.read(back).to_torch(), make_state())
    meta = dict(checkpoint.read(new).meta)
    assert json.loads(meta.pop("ddq_manifest"))["source"][0]["name"] == "legacy.pth"
    assert meta == {
        **({"format": "pt"} if suffix == ".safetensors" else {"epoch": 12}),
        "family": "ddq_detr",
        "variant": "tiny_r18",
        "layout": "new",
        "tool": "ddq-convert",
        "tool_version": "0.1.0",
    }


def test_json_quiet_and_verbose(tmp_path: Path, legacy_file: Path) -> None:
    data = json.loads(_run("convert", legacy_file, tmp_path / "a.pth", "--json").stdout)
    assert (data["tensors"], data["kept"], data["renamed"], data["duplicates_dropped"]) == (308, 300, 8, 18)
    assert (data["family"], data["variant"], data["from"], data["to"]) == ("ddq_detr", "tiny_r18", "legacy", "new")
    assert len(data["ledger"]) == 326
    quiet = _run("convert", legacy_file, tmp_path / "b.pth", "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")
    verbose = _run("convert", legacy_file, tmp_path / "c.pth", "-v")
    assert len(verbose.stderr.splitlines()) == 26
    assert "rename bbox_head.cls_branches.4.bias -> bbox_head.aux_cls_branches.3.bias" in verbose.stderr


def test_dataset_meta_travels(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    meta = {"dataset_meta": {"classes": ["disc", "box", "bar"]}, "time": "yesterday"}
    torch.save({"meta": meta, "state_dict": make_state()}, tmp_path / "a.pth")
    assert _run("convert", tmp_path / "a.pth", tmp_path / "b.safetensors").exit_code == 0
    found = checkpoint.read(tmp_path / "b.safetensors").meta
    assert found["dataset_meta"] == meta["dataset_meta"] and "time" not in found


def test_force_replaces(tmp_path: Path, legacy_file: Path) -> None:
    (tmp_path / "a.pth").write_text("old")
    assert _run("convert", legacy_file, tmp_path / "a.pth", "--force").exit_code == 0
    assert (tmp_path / "a.pth").stat().st_size > 1000


def test_options_from_the_environment(
    tmp_path: Path, make_state: Callable[..., StateDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(make_state("new"), tmp_path / "a.pth")
    monkeypatch.setenv("DDQ_CONVERT_CONVERT_TO", "legacy")
    assert _run("convert", tmp_path / "a.pth", tmp_path / "b.pth").exit_code == 0


def test_legacy_to_legacy_drops_the_duplicates_and_says_so(
    tmp_path: Path, legacy_file: Path, make_state: Callable[..., StateDict], assert_same: Callable[..., None]
) -> None:
    result = _run("convert", legacy_file, tmp_path / "a.pth", "--to", "legacy", "-v")
    assert result.exit_code == 0
    assert result.stdout == f"CONVERTED 308 tensors: 308 kept, 0 renamed, 18 duplicates dropped -> {tmp_path}/a.pth\n"
    assert len(result.stderr.splitlines()) == 18
    assert "drop_duplicate decoder.aux_reg_branches.0.0.bias" in result.stderr
    assert_same(checkpoint.read(tmp_path / "a.pth").to_torch(), make_state())
    assert checkpoint.read(tmp_path / "a.pth").meta["layout"] == "legacy"
    data = json.loads(_run("convert", legacy_file, tmp_path / "b.pth", "--to", "legacy", "--json").stdout)
    assert (data["from"], data["to"], len(data["ledger"])) == ("legacy", "legacy", 326)


def _missing(folder: Path, state: StateDict) -> None:
    """Make no file at all."""


def _text(folder: Path, state: StateDict) -> None:
    (folder / "src").write_text("not a checkpoint, only text")


def _empty(folder: Path, state: StateDict) -> None:
    (folder / "src").write_bytes(b"")


def _cut_pth(folder: Path, state: StateDict) -> None:
    torch.save(state, folder / "src")
    os.truncate(folder / "src", 100_000)


def _cut_safetensors(folder: Path, state: StateDict) -> None:
    save_file(state, folder / "src")
    os.truncate(folder / "src", 100_000)


def _other_model(folder: Path, state: StateDict) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "src")


def _other_classes(folder: Path, state: StateDict) -> None:
    torch.save(
        {
            key: torch.cat([tensor, tensor[:1]]) if "cls_branches" in key or "label_embedding" in key else tensor
            for key, tensor in state.items()
        },
        folder / "src",
    )


def _disagreeing(folder: Path, state: StateDict) -> None:
    key = "dn_query_generator.label_embedding.weight"
    torch.save(state | {key: state[key].repeat(2, 1)}, folder / "src")


def _unmapped(folder: Path, state: StateDict) -> None:
    torch.save(state | {"extra.weight": torch.ones(1)}, folder / "src")


def _differing(folder: Path, state: StateDict) -> None:
    torch.save(state | {"decoder.aux_reg_branches.0.0.bias": torch.ones(64)}, folder / "src")


def _new(folder: Path, state: StateDict) -> None:
    _sound(folder, state)
    assert _run("convert", folder / "src", folder / "new.pth").exit_code == 0
    (folder / "new.pth").replace(folder / "src")


def _sound(folder: Path, state: StateDict) -> None:
    torch.save(state, folder / "src")


@pytest.mark.parametrize(
    "make, options, code, message",
    [
        (_missing, [], 2, "does not exist"),
        (_text, [], 2, "neither a torch zip file nor a safetensors file"),
        (_empty, [], 2, "is empty"),
        (_cut_pth, [], 2, "truncated"),
        (_cut_safetensors, [], 2, "truncated"),
        (
            _sound,
            ["--to", "legacy"],
            2,
            "already has the legacy layout of ddq_detr tiny_r18; it can be loaded as it is by the official code and "
            "by mmdet 3.3.0, or converted with --to new; pass --keep model to write its weights as .safetensors.",
        ),
        (
            _new,
            [],
            2,
            "already has the new layout of ddq_detr tiny_r18; it can be loaded as it is by ddq_port, or converted "
            "with --to legacy; pass --keep model to write its weights as .safetensors.",
        ),
        (
            _sound,
            ["--family", "yolo"],
            2,
            "There is no family `yolo`; known are co_detr, ddq_detr, ddq_detr_fast, ddq_fcn, ddq_rcnn, mmdet2, mmdet_co_detr, mmdet_ddq, or give the folder of one",
        ),
        (_sound, ["--variant", "r18"], 2, "has no variant `r18`"),
        (
            _sound,
            ["--legacy-config", "old.py"],
            2,
            "--legacy-config goes with --new-config, which says what the model is; pass both.",
        ),
        (_sound, ["--to", "sideways"], 2, "'sideways' is not one of 'new', 'legacy'"),
        (_sound, ["--nonsense"], 2, "No such option"),
        (_other_model, [], 1, "fit no known layout"),
        (_other_model, ["--family", "ddq_detr", "--variant", "tiny_r18"], 1, "matched by no rule"),
        (
            _sound,
            ["--family", "ddq_detr", "--variant", "r50_4scale"],
            1,
            "The source has 3 classes, variant `r50_4scale` has 80",
        ),
        (_other_classes, [], 1, "The source has 4 classes, variant `tiny_r18` has 3"),
        (_disagreeing, ["--num-classes", "2"], 1, "The source disagrees about its number of classes"),
        (_unmapped, [], 1, "Key `extra.weight` of the source is matched by no rule of mapping `ddq_detr`"),
        (_unmapped, ["--to", "legacy"], 1, "Key `extra.weight` of the source is matched by no rule"),
        (
            _differing,
            ["--to", "legacy"],
            1,
            "should repeat `bbox_head.aux_reg_branches.0.0.bias` bit by bit but differs",
        ),
        (
            _differing,
            [],
            1,
            "Key `decoder.aux_reg_branches.0.0.bias` should repeat `bbox_head.aux_reg_branches.0.0.bias`",
        ),
    ],
)
def test_bad_input(
    tmp_path: Path,
    make_state: Callable[..., StateDict],
    make: Callable[[Path, StateDict], None],
    options: list[str],
    code: int,
    message: str,
) -> None:
    make(tmp_path, make_state())
    before = {path.name for path in tmp_path.iterdir()}
    result = _run("convert", tmp_path / "src", tmp_path / "dst.safetensors", *options)
    _assert_refused(result, code, message, tmp_path, before)


def test_allow_unmapped(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    _unmapped(tmp_path, make_state())
    result = _run("convert", tmp_path / "src", tmp_path / "dst.pth", "--allow-unmapped")
    assert result.exit_code == 0 and ", 1 unmapped left out -> " in result.stdout


def test_existing_output_is_refused(tmp_path: Path, legacy_file: Path) -> None:
    (tmp_path / "dst.pth").write_text("old")
    result = _run("convert", legacy_file, tmp_path / "dst.pth")
    _assert_refused(result, 2, "exists already; pass --force", tmp_path, {"legacy.pth", "dst.pth"})
    assert (tmp_path / "dst.pth").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path: Path, legacy_file: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    _assert_refused(_run("convert", legacy_file, folder / "a.pth"), 2, "Permission denied", folder, set())


def test_refused_by_the_system(tmp_path: Path, legacy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    result = _run("convert", legacy_file, tmp_path / "a.pth")
    _assert_refused(result, 2, "a.pth`: Permission denied.", tmp_path, {"legacy.pth"})


@pytest.mark.parametrize("space", [1_000, 89_600, 100_000, 1_000_000, 4_000_000])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_full_disk(tmp_path: Path, legacy_file: Path, name: str, space: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (space, space))

    done = _python("-B", "-m", "converters", "convert", legacy_file, tmp_path / name, preexec_fn=limit)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: Cannot read or write `{tmp_path / name}`: File too large.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["legacy.pth"]


def test_inspect(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    path = tmp_path / "a.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": make_state(duplicates=True), "optimizer": {}}, path)
    result = _run("inspect", path)
    assert result.exit_code == 0 and result.stderr == ""
    facts = {line[:14].strip(): line[14:] for line in result.stdout.splitlines()}
    assert facts["tensors"] == "326" and facts["parameters"] == "1.18 M"
    assert facts["layout"] == "ddq_detr tiny_r18, legacy side (same layout as mmdet_ddq)"
    assert facts["classes"] == "3" and facts["duplicates"] == "18, all equal to their twins"
    assert facts["meta"] == "epoch" and facts["also holds"] == "optimizer" and facts["made inert"] == "nothing"
    data = json.loads(_run("inspect", path, "--json").stdout)
    assert data["detection"] == {"family": "ddq_detr", "variant": "tiny_r18", "side": "legacy"}


def test_inspect_reports_differing_duplicates(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    _differing(tmp_path, make_state())
    assert "1, 1 differ, first decoder.aux_reg_branches.0.0.bias" in _run("inspect", tmp_path / "src").stdout


def test_inspect_of_an_unknown_model(tmp_path: Path) -> None:
    _other_model(tmp_path, {})
    result = _run("inspect", tmp_path / "src")
    assert result.exit_code == 0 and "unknown" in result.stdout


@pytest.mark.parametrize("options", [["--family", "ddq_fcn"], ["--variant", "tiny_r18"]])
def test_a_model_that_is_named_and_does_not_fit_is_refused(
    tmp_path: Path, make_state: Callable[..., StateDict], options: list[str]
) -> None:
    """Without a name it is described, and compared key by key."""
    _other_model(tmp_path, {})
    for command in (["inspect", tmp_path / "src"], ["diff", tmp_path / "src", tmp_path / "src"]):
        assert _run(*command).exit_code == 0
        result = _run(*command, *options)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.output
        assert result.stderr.startswith(f"error: `{tmp_path / 'src'}`: " if command[0] == "diff" else "error: ")


@pytest.mark.parametrize("make", [_missing, _text, _empty, _cut_pth, _cut_safetensors])
def test_inspect_of_bad_input(
    tmp_path: Path, make_state: Callable[..., StateDict], make: Callable[[Path, StateDict], None]
) -> None:
    make(tmp_path, make_state())
    before = {path.name for path in tmp_path.iterdir()}
    _assert_refused(_run("inspect", tmp_path / "src"), 2, "", tmp_path, before)


@pytest.mark.parametrize("args", [["--help"], ["convert", "--help"], ["inspect", "--help"]])
def test_help_is_light_and_tells_exit_codes(args: list[str]) -> None:
    start = time.perf_counter()
    done = _python("-X", "importtime", "-m", "converters", *args)
    assert done.returncode == 0 and "Exit codes:" in done.stdout
    assert time.perf_counter() - start < 2  # 0.1 s on an idle machine; what matters is that nothing heavy is imported
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"torch", "rich", "numpy", "safetensors", "mmdet"})


def test_no_command_shows_help() -> None:
    result = _run()
    assert result.exit_code == 2 and "Usage:" in result.output


def test_a_missing_package_of_an_extra_says_how_to_install_it() -> None:
    error = ModuleNotFoundError("No module named 'pycocotools'", name="pycocotools")
    assert cli.explained(error) == f"pycocotools is not installed; install it with {EXTRAS}."
    error = ModuleNotFoundError("No module named 'yapf'", name="yapf")
    assert cli.explained(error) == "Cannot import: No module named 'yapf'; is it installed here?"
    assert cli.explained(ModuleNotFoundError("No module named 'converters.x'", name="converters.x")) is None


def test_submodules_that_are_not_imported_yet_are_listed() -> None:
    assert {"api", "checkpoint", "rule_file", "__version__"} <= set(dir(converters))
    with pytest.raises(AttributeError, match="module 'converters' has no attribute 'nothing'"):
        converters.nothing  # noqa: B018


def test_lazy_submodules() -> None:
    code = 'import sys, converters; assert "torch" not in sys.modules; print(converters.checkpoint.read.__name__)'
    assert _python("-c", code).stdout == "read\n"


def test_source_is_never_its_own_destination(tmp_path: Path, legacy_file: Path) -> None:
    before = legacy_file.read_bytes()
    result = _run("convert", legacy_file, legacy_file, "--force")
    _assert_refused(result, 2, "is the source itself", tmp_path, {"legacy.pth"})
    assert legacy_file.read_bytes() == before


@pytest.mark.parametrize("options", [[], ["--json"], ["-q"], ["-vv"], ["--shard-size", "1MB"], ["--strip"]])
def test_a_dry_run_writes_nothing(tmp_path: Path, legacy_file: Path, options: list[str]) -> None:
    result = _run("convert", legacy_file, tmp_path / "a.safetensors", "--dry-run", *options)
    assert result.exit_code == 0 and result.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["legacy.pth"]


def test_the_plan_is_a_table_of_every_tensor(
    tmp_path: Path, legacy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = _run("convert", legacy_file, "a.pth", "--dry-run").stdout.splitlines()
    assert lines[:3] == [
        "ddq_detr tiny_r18, legacy -> new",
        "action   dtype    shape         tensor",
        "keep     float32  16            backbone.bn1.bias",
    ]
    at = lines.index("rename   float32  3             bbox_head.cls_branches.4.bias")
    assert lines[at + 1] == "                                -> bbox_head.aux_cls_branches.3.bias"
    at = lines.index("repeated float32  64            decoder.aux_reg_branches.0.0.bias")
    assert lines[at + 1] == "                                same as bbox_head.aux_reg_branches.0.0.bias"
    assert lines[-1].startswith("PLANNED 308 tensors: 300 kept, 8 renamed, 18 duplicates dropped, ")
    assert lines[-1].endswith(" MB -> a.pth; nothing written")
    assert all(len(line) < 80 for line in lines[:-1])
    assert sum(line.startswith(("keep ", "rename ", "repeated ")) for line in lines) == 326


def test_long_keys_of_the_plan_go_on_below(tmp_path: Path, make_state: Callable[..., StateDict]) -> None:
    torch.save(make_state(variant="tiny_swinl"), tmp_path / "a.pth")
    lines = _run("convert", tmp_path / "a.pth", tmp_path / "b.pth", "--dry-run").stdout.splitlines()
    assert all(len(line) < 80 for line in lines[:-1])
    at = next(at for at, line in enumerate(lines) if "relative_position_bias_table" in line and line.startswith(" "))
    assert lines[at - 1][32:] + lines[at][32:] == "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"


def test_the_plan_as_json(tmp_path: Path, legacy_file: Path) -> None:
    data = json.loads(_run("convert", legacy_file, tmp_path / "a.pth", "--dry-run", "--json").stdout)
    assert data["dry_run"] is True and data["files"] == [] and len(data["ledger"]) == 326
    line = next(line for line in data["ledger"] if line["source"] == "bbox_head.cls_branches.4.bias")
    assert (line["target"], line["action"]) == ("bbox_head.aux_cls_branches.3.bias", "rename")
    assert (line["dtype"], line["shape"], line["changes"]) == ("float32", [3], [])
    written = json.loads(_run("convert", legacy_file, tmp_path / "a.pth", "--json").stdout)
    assert written["dry_run"] is False and [file["name"] for file in written["files"]] == ["a.pth"]
    assert {**written, "dry_run": True, "files": []} == data


@pytest.mark.parametrize(
    "make, name, options, code, message",
    [
        (_unmapped, "a.pth", [], 1, "matched by no rule"),
        (_differing, "a.pth", [], 1, "bit by bit but differs"),
        (_new, "a.pth", [], 2, "already has the new layout"),
        (_sound, "a.pth", ["--shard-size", "1MB"], 2, "--shard-size cannot split"),
        (_sound, "src2.pth", [], 2, "exists already"),
        (_sound, "no/a.pth", [], 2, "does not exist"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(
    tmp_path: Path,
    make_state: Callable[..., StateDict],
    make: Callable[[Path, StateDict], None],
    name: str,
    options: list[str],
    code: int,
    message: str,
) -> None:
    make(tmp_path, make_state())
    (tmp_path / "src2.pth").write_text("old")
    before = {path.name for path in tmp_path.iterdir()}
    _assert_refused(
        _run("convert", tmp_path / "src", tmp_path / name, "--dry-run", *options), code, message, tmp_path, before
    )


@pytest.mark.parametrize("command", [["inspect"], ["convert", "--dry-run"], ["convert"]])
def test_results_that_cannot_be_printed_are_one_line(tmp_path: Path, legacy_file: Path, command: list[str]) -> None:
    out = [str(tmp_path / "new.safetensors")] if command[0] == "convert" else []
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "converters", command[0], str(legacy_file), *out, *command[1:]],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: Cannot write the result to stdout: No space left on device.\n"


def test_name_of_a_checkpoint_in_parts_leads_to_its_index(tmp_path: Path, legacy_file: Path) -> None:
    _run("convert", legacy_file, tmp_path / "new.safetensors", "--shard-size", "2MB")
    result = _run("inspect", tmp_path / "new.safetensors")
    assert result.exit_code == 2 and "its parts are in" in result.stderr and "index.json" in result.stderr
