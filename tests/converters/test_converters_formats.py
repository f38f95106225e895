"""Files and folders that are no checkpoint: what they are is said, and the command that is named makes one of them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from converters.cli.main import cli

StateDict = dict[str, Tensor]
STATE: StateDict = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "b": torch.tensor(3)}


def _inspect(path: Path | str) -> Result:
    return CliRunner().invoke(cli, ["inspect", str(path)])


def _saved(path: Path) -> Path:
    torch.save({"state_dict": STATE}, path)
    return path


def _tar(mode: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with tarfile.open(path, mode) as archive:
            archive.add(_saved(path.with_name("inner.bin")), "run/model.pth")
        path.with_name("inner.bin").unlink()

    return make


def _packed(compress: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(compress(_saved(path).read_bytes()))

    return make


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(_saved(path.with_name("inner.bin")), "run/the model.pth")
        archive.writestr("run/log.txt", "x")
    path.with_name("inner.bin").unlink()


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(_saved(path)) as source:
        records = [(info.filename, source.read(info)) for info in source.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in records:
            target.writestr(name, data)


def _unpacked(path: Path) -> None:
    with zipfile.ZipFile(_saved(path.with_name(f"{path.name}.pth"))) as source:
        source.extractall(path.parent)
    path.with_name(f"{path.name}.pth").unlink()


def _unpacked_into(path: Path) -> None:
    path.mkdir()
    _unpacked(path / "archive")


def _dcp(path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": STATE, "epoch": 3}, checkpoint_id=path)


def _scripted(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), path)


#: How to make a file or folder, what is said of it, and the programs that the command needs.
MENDED: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "a.pth.gz": (_packed(gzip.compress), "packed with gzip", ("gunzip",)),
    "called_so.pth": (_packed(gzip.compress), "packed with gzip", ("gunzip",)),
    "a.pth.xz": (_packed(lzma.compress), "packed with xz", ("xz",)),
    "a.pth.bz2": (_packed(bz2.compress), "packed with bzip2", ("bunzip2",)),
    "a.tar.gz": (_tar("w:gz"), "packed with gzip", ("tar", "gzip")),
    "a.tar": (_tar("w"), "a tar file with the checkpoint `run/model.pth`", ("tar",)),
    "a.zip": (_zipped, "a zip archive with the checkpoint `run/the model.pth`", ("unzip",)),
    "compressed.pth": (_compressed, "records are compressed", ("zip", "unzip")),
    "unpacked": (_unpacked, "an unpacked file of torch.save", ("zip",)),
    "around": (_unpacked_into, "an unpacked file of torch.save", ("zip",)),
    "dcp": (_dcp, "torch.distributed.checkpoint wrote", ()),
    "arrays.npz": (lambda path: np.savez(path, **{k: v.numpy() for k, v in STATE.items()}), "numpy's arrays", ()),
    "script.pt": (_scripted, "a TorchScript archive", ()),
}


@pytest.mark.parametrize("name", MENDED)
def test_the_command_that_is_named_makes_a_checkpoint(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, told, programs = MENDED[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    before = set(tmp_path.rglob("*"))
    refused = _inspect(name)
    assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1, refused.output
    assert told in refused.stderr, refused.stderr
    if not all(map(shutil.which, programs)):
        pytest.skip(f"needs {programs}")
    command = re.search(r": `([^`]+)`\.$", refused.stderr.strip())
    assert command is not None, refused.stderr
    line = re.sub("^python ", f"{sys.executable} ", command[1])
    subprocess.run(line, shell=True, check=True, capture_output=True)
    made = [path for path in set(tmp_path.rglob("*")) - before if path.suffix in (".pth", ".pt")]
    assert len(made) == 1
    seen = json.loads(CliRunner().invoke(cli, ["inspect", str(made[0]), "--json"]).stdout)
    assert seen["tensors"] == (2 if name == "script.pt" else 3)


def _text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content) and None


def _records(**names: bytes) -> Callable[[Path], None]:
    """Write a zip file of records, whose names have `__` in place of a dot."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in names.items():
                archive.writestr(name.replace("__", "."), content)

    return make


def _folder(*names: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            _saved(path / name) if name.endswith((".pt", ".pth")) else (path / name).write_text("1")

    return make


#: How to make a file or folder, and what is said of it.
TOLD: dict[str, tuple[Callable[[Path], None], str]] = {
    "lfs.pth": (_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"), "run `git lfs pull`"),
    "page.pth": (_text("\ufeff\n<!DOCTYPE html><html></html>"), "a web page, and not the file to download"),
    "old_page.pth": (_text("<html><head></head></html>"), "a web page"),
    "denied.pth": (_text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), "an answer of a server"),
    "error.pth": (_text('{"error": {"code": 403}}'), "text in JSON, and not the file to download"),
    "zeros.pth": (_text(bytes(4096)), "nothing but zeros; the download or copy was not completed"),
    "long_error.pth": (_text('{"error": "' + "x" * 600 + '"}'), "it is text in JSON, and no checkpoint"),
    "epoch_1.pth.part": (_text(bytes(range(1, 200))), "it is a download that was not completed; get it again"),
    "damaged.pth.xz": (_text(b"\xfd7zXZ\x00" + bytes(range(99))), "it is packed with xz; unpack it: `xz -dc "),
    "damaged.tar.xz": (_text(b"\xfd7zXZ\x00" + bytes(range(99))), "it is packed with xz; unpack it: `tar -xJf "),
    "two.zip": (
        _records(a__pth=b"", b__pth=b"", log__txt=b""),
        "2 checkpoints in it (`a.pth`, `b.pth`); unpack it: `unzip ",
    ),
    "program.pt2": (
        _records(archive_format=b"pt2"),
        "it is a program of torch.export; save its state dict: `python -c ",
    ),
    "model.keras": (_records(config__json=b"{}", model__weights__h5=b""), "it is a model of TensorFlow"),
    "a.onnx": (_text(b"\x08\x08\x12\x07pytorch\x1a\x052.0.0"), "an ONNX model"),
    "onnx_called.pth": (_text(b"\x08\x08\x12\x07pytorch\x1a\x052.0.0"), "looks like an ONNX model"),
    "a.engine": (_text(b"ptrt" + bytes(range(99))), "an engine of TensorRT"),
    "a.h5": (_text(b"\x89HDF\r\n\x1a\n" + b"x" * 99), "an HDF5 file"),
    "a.npy": (lambda path: np.save(path, np.zeros(3)), "a single array of numpy"),
    "a.7z": (_text(b"7z\xbc\xaf\x27\x1c" + b"x" * 99), "a 7z archive; unpack it: `7z x "),
    "a.pth.zst": (_text(b"\x28\xb5\x2f\xfd" + b"x" * 99), "packed with zstd; unpack it: `zstd -dc "),
    "model.tflite": (_text(b"\x1c\x00\x00\x00TFL3" + b"x" * 99), "a file of TensorFlow"),
    "model.ckpt.data-00000-of-00001": (_text(b"\x01" * 600), "a file of TensorFlow"),
    "a.pdparams": (_text(b"\x80\x02}q\x00."), "a file of PaddlePaddle"),
    "tensorflow": (_folder("saved_model.pb", "variables/variables.index"), "a folder of TensorFlow"),
    "ds": (_folder("zero_to_fp32.py", "latest", "global_step5/mp_rank_00_model_states.pt"), "zero_to_fp32.py "),
    "ds_without_script": (_folder("latest", "global_step5/x"), "`python -m deepspeed.utils.zero_to_fp32 "),
    "megatron": (
        _folder("latest_checkpointed_iteration.txt", "iter_0000100/mp_rank_00/model_optim_rng.pt"),
        "a folder of Megatron-LM; name the file in it: `",
    ),
    "megatron_cut": (
        _folder(
            "latest_checkpointed_iteration.txt",
            "iter_0000100/mp_rank_00/model_optim_rng.pt",
            "iter_0000100/mp_rank_01/model_optim_rng.pt",
        ),
        "cut over 2 processes",
    ),
    "work_dir": (_folder("last_checkpoint", "epoch_1.pth"), "name the file in it: `"),
    "__0_0.distcp": (
        _text(b"\x01" * 99),
        "a part of a folder that torch.distributed.checkpoint wrote; its table `.metadata` is missing",
    ),
    "torn": (_folder("__0_0.distcp"), "its table `.metadata` is missing"),
    "nothing": (lambda path: path.mkdir(), "it is a folder, expected a .pth or .safetensors file"),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_it_is_is_said(tmp_path: Path, name: str) -> None:
    make, told = TOLD[name]
    make(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    convert = CliRunner().invoke(cli, ["convert", str(tmp_path / name), str(tmp_path / "out.pth")])
    for result in (_inspect(tmp_path / name), convert):
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
        assert told in result.stderr, result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_parts_of_a_distributed_checkpoint_name_their_folder(tmp_path: Path) -> None:
    _dcp(tmp_path / "dcp")
    for name in ("__0_0.distcp", ".metadata"):
        told = _inspect(tmp_path / "dcp" / name).stderr
        assert f"dcp_to_torch {tmp_path / 'dcp'} dcp.pth" in told, told


def test_shards_that_torch_wrote_are_read_by_their_index(tmp_path: Path) -> None:
    names = {key: f"pytorch_model-0000{1 + (key == 'b')}-of-00002.bin" for key in STATE}
    for file in set(names.values()):
        torch.save({key: STATE[key] for key in names if names[key] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": names}))
    seen = json.loads(CliRunner().invoke(cli, ["inspect", str(index), "--json"]).stdout)
    assert seen["tensors"] == 3 and seen["format"] == "pth"
    assert f"name the file in it: `{index}`" in _inspect(tmp_path).stderr
    asked = CliRunner().invoke(cli, ["inspect", str(index), "--key", "net"])
    assert asked.exit_code == 2 and asked.stderr.startswith(
        f"error: Cannot read the checkpoint `{index}`: it holds no dict under `net`"
    )
    torch.save([1], tmp_path / names["b"])
    assert "expected a dict of tensors by name" in _inspect(index).stderr


def test_a_command_overwrites_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _packed(gzip.compress)(tmp_path / "a.pth.gz")
    (tmp_path / "a.pth").write_text("something else")
    assert "> a_unpacked.pth`" in _inspect("a.pth.gz").stderr
