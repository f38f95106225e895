"""Say what a file or folder is that is not a checkpoint, and the command that makes one of it, where there is one."""

from __future__ import annotations

import json
import os
import shlex
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from converters.errors import MalformedError, listed
from converters.formats import zip_directory
from converters.formats.stored import SourceFile

_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pkl")
_MOST_NAMES = 10_000  # that are looked at in an archive or folder
_BEGIN = 1024  # bytes of what is packed that tell what it is
_MOST_MEMORY = 1 << 27  # bytes, to unpack these

#: What a file begins with, what it is, and the command for it; `{}` is the file, `{out}` what to write.
_MAGIC = (
    (b"\x1f\x8b", "packed with gzip", "gunzip -c {} > {out}", "tar -xzf {}"),
    (b"\xfd7zXZ\x00", "packed with xz", "xz -dc {} > {out}", "tar -xJf {}"),
    (b"BZh", "packed with bzip2", "bunzip2 -c {} > {out}", "tar -xjf {}"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "zstd -dc {} > {out}", "tar --zstd -xf {}"),
    (b"\x04\x22\x4d\x18", "packed with lz4", "lz4 -dc {} > {out}", "tar -I lz4 -xf {}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {}", "7z x {}"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar x {}", "unrar x {}"),
)
#: Formats for inference alone, or of other code bases: what they begin with (at byte 0), their suffixes, what they are.
_MODELS = (
    ((b"ptrt", b"ftrt"), (".engine", ".plan", ".trt"), "an engine of TensorRT"),
    ((), (".onnx",), "an ONNX model"),
    ((b"\x89HDF\r\n\x1a\n",), (".h5", ".hdf5", ".keras"), "an HDF5 file, as Keras writes it"),
    ((), (".tflite",), "a model of TensorFlow Lite"),
    ((), (".pb", ".meta"), "a graph of TensorFlow"),
    ((b"GGUF",), (".gguf",), "a GGUF file"),
    ((), (".mlmodel", ".mlpackage"), "a model of Core ML"),
    ((), (".xml",), "a model of OpenVINO"),
    ((), (".param",), "a model of ncnn"),
    ((), (".pdiparams",), "a file of PaddlePaddle"),
    ((), (".params",), "a file of MXNet"),
    ((), (".caffemodel",), "a model of Caffe"),
    ((), (".weights",), "a file of Darknet"),
    ((b"MATLAB 5.0",), (".mat",), "a file of MATLAB"),
)
_NO_STEM = (".gz", ".xz", ".bz2", ".zst", ".lz4", ".npz", ".zip", ".pth", ".pt", ".pt2", ".ckpt", ".bin")
_ORIGINAL = "its weights do not have the names of a state dict; use the checkpoint of torch that it was made from"
_DCP = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"


def file(path: Path, head: bytes) -> str | None:
    """Say what a file is that begins with `head`; None where that is not known.

    Raises:
        OSError: If it cannot be read.
    """
    suffix = path.suffix.lower()
    for magic, what, alone, archive in _MAGIC:
        if head.startswith(magic):
            return _packed(path, what, alone, archive)
    if head[257:262] == b"ustar":
        return _tar(path)
    text = _text(path, head)
    if text is not None:
        return text
    if head.startswith(b"\x93NUMPY"):
        return "it is a single array of numpy, and no state dict"
    if suffix == ".distcp":
        return f"it is a part of a folder that torch.distributed.checkpoint wrote; {_dcp(path.parent)}"
    if ".data-0" in path.name or path.name.endswith(".index") or head[4:8] == b"TFL3":
        return f"it is a file of TensorFlow; {_ORIGINAL}"
    for begins, suffixes, what in _MODELS:
        if suffix in suffixes or head.startswith(begins):
            return f"it is {what}; {_ORIGINAL}"
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a", b"\x1a") and head[1:2] < b"\x20":
        return f"it looks like an ONNX model; {_ORIGINAL}"
    if not any(head):
        return "it begins with nothing but zeros; the download or copy was not completed, so get it again"
    if suffix in (".part", ".crdownload", ".aria2", ".tmp"):
        return "it is a download that was not completed; get it again"
    return None


def pickled(path: Path) -> str | None:
    """Say what a pickle is that torch did not write; None where that is not known."""
    if path.name == ".metadata":
        return f"it is the table of a folder that torch.distributed.checkpoint wrote; {_dcp(path.parent)}"
    if path.suffix.lower() in (".pdparams", ".pdopt"):
        return f"it is a file of PaddlePaddle; {_ORIGINAL}"
    return None


def archive(source: SourceFile) -> str | None:
    """Say what a zip file is that torch did not write as a checkpoint; None where it is one, or damaged.

    Raises:
        OSError: If it cannot be read.
    """
    path = source.path
    if path.suffix.lower() == ".distcp":
        return f"it is a part of a folder that torch.distributed.checkpoint wrote; {_dcp(path.parent)}"
    try:
        records = zip_directory.read(source)
    except MalformedError:
        return None
    names = list(records)
    ends = {name.rpartition("/")[2] for name in names}
    if names and all(name.endswith(".npy") for name in names):
        arrays = f"numpy.load({str(path)!r}).items()"
        script = f"torch.save({{key: torch.from_numpy(array) for key, array in {arrays}}}, {str(_out(path))!r})"
        return f"it is a file of numpy's arrays (.npz); make a state dict of it: `{_python('numpy, torch', script)}`"
    if "constants.pkl" in ends and "data.pkl" in ends:
        script = f"torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), {str(_out(path))!r})"
        return f"it is a TorchScript archive; save its state dict: `{_python('torch', script)}`"
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        script = f"torch.save(torch.export.load({str(path)!r}).state_dict, {str(_out(path))!r})"
        return f"it is a program of torch.export; save its state dict: `{_python('torch', script)}`"
    if "data.pkl" in ends:
        compressed = any(record.compressed for record in records.values())
        return _repack(path) if compressed or "data.pkl" in names else None
    if ends & {"saved_model.pb", "model.weights.h5", "keras_metadata.pb"}:
        return f"it is a model of TensorFlow; {_ORIGINAL}"
    return _inside(path, names, "a zip archive", "unzip {}")


def folder(path: Path) -> str | None:
    """Say what a folder is that something wrote as a checkpoint; None where that is not known.

    Raises:
        OSError: If it cannot be read.
    """
    names = sorted(os.listdir(path))[:_MOST_NAMES]
    held = set(names)
    if ".metadata" in held or any(name.endswith(".distcp") for name in names):
        return f"it is a folder that torch.distributed.checkpoint wrote (DCP, FSDP); {_dcp(path)}"
    if "latest_checkpointed_iteration.txt" in held or any(
        name.startswith("mp_rank_") for name in held if "." not in name
    ):
        return _megatron(path)
    deepspeed = _deepspeed(path, names)
    if deepspeed:
        return deepspeed
    if "data.pkl" in held and ("data" in held or "version" in held):
        made = shlex.quote(f"{path.resolve().name}.pth")
        where = shlex.quote(str(path.resolve().parent))
        pack = f"cd {where} && zip -0 -r {made} {shlex.quote(path.resolve().name)}"
        return f"it is an unpacked file of torch.save; pack it again without compression: `{pack}`"
    unpacked = [name for name in names if (path / name / "data.pkl").is_file()]
    if len(unpacked) == 1:
        return folder(path / unpacked[0])
    if "saved_model.pb" in held or ("checkpoint" in held and any(name.endswith(".index") for name in names)):
        return f"it is a folder of TensorFlow; {_ORIGINAL}"
    indices = [name for name in names if name.endswith((".safetensors.index.json", ".bin.index.json"))]
    files = indices or [name for name in names if name.lower().endswith(_WEIGHTS) and (path / name).is_file()]
    if files:
        newest = max(files, key=lambda name: (path / name).stat().st_mtime_ns)
        more = f" (or another of its {len(files)} checkpoints)" if len(files) > 1 else ""
        return f"it is a folder; name the file in it: `{path / newest}`{more}"
    return None


def _shell(path: Path) -> str:
    """Quote a path for a shell; one that begins with a dash would be taken for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def _python(modules: str, script: str) -> str:
    """Return a command line that runs a script, quoted for a shell as plainly as can be."""
    text = f"import {modules}; {script}"
    return f"python -c {shlex.quote(text)}" if set('"$`\\!') & set(text) else f'python -c "{text}"'


def _dcp(path: Path) -> str:
    """Give the command for a folder of torch.distributed.checkpoint; its table must be there."""
    if not (path / ".metadata").is_file():
        return "its table `.metadata` is missing, without which it cannot be read; copy the whole folder"
    return f"make one file of it: `{_DCP} {_shell(path)} {shlex.quote(f'{path.resolve().name}.pth')}`"


def _deepspeed(path: Path, names: list[str]) -> str | None:
    """Recognise DeepSpeed's folder, and the one of a step in it."""
    states = [name for name in names if name.endswith(("_model_states.pt", "_optim_states.pt"))]
    steps = [name for name in names if name.startswith("global_step") and (path / name).is_dir()]
    if not states and not steps and "zero_to_fp32.py" not in names:
        return None
    outer = path.resolve().parent if states and "zero_to_fp32.py" not in names else path
    tag = f" -t {shlex.quote(path.resolve().name)}" if outer != path else ""
    script = outer / "zero_to_fp32.py"
    run = f"python {shlex.quote(str(script))}" if script.is_file() else "python -m deepspeed.utils.zero_to_fp32"
    made = f"{outer.resolve().name}_fp32"
    return (
        f"it is a folder of DeepSpeed; collect its weights: `{run} {shlex.quote(str(outer))} {shlex.quote(made)}{tag}`"
    )


def _megatron(path: Path) -> str:
    """Recognise Megatron-LM's folder; one process alone has whole weights in one file."""
    files = sorted(path.glob("mp_rank_*/model_optim_rng.pt")) or sorted(path.glob("*/mp_rank_*/model_optim_rng.pt"))
    if len({file.parent.name for file in files}) == 1:
        return f"it is a folder of Megatron-LM; name the file in it: `{files[-1]}`"
    return (
        f"it is a folder of Megatron-LM, whose weights are cut over {len({file.parent.name for file in files})} "
        "processes; its tools/checkpoint/convert.py with --target-tensor-parallel-size 1 and "
        "--target-pipeline-parallel-size 1 makes one file of them"
    )


def _packed(path: Path, what: str, alone: str, archive: str) -> str:
    inner = _first_bytes(path)
    named_tar = any(suffix in (".tar", ".tgz", ".txz", ".tbz2", ".tbz") for suffix in path.suffixes)
    command = archive if inner[257:262] == b"ustar" or (not inner and named_tar) else alone
    done = command.format(_shell(path), out=_shell(_out(path)))
    return f"it is {what}; unpack it: `{done}`"


def _first_bytes(path: Path) -> bytes:
    """Unpack the begin of a file, as far as that can be done here; nothing where it cannot."""
    with path.open("rb") as opened:
        data = opened.read(1 << 16)
    with suppress(
        zlib.error, ImportError, OSError, ValueError, EOFError, MemoryError
    ):  # a Python may lack lzma and bz2
        if data.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(data, _BEGIN)
        if data.startswith(b"BZh"):
            import bz2

            return bz2.BZ2Decompressor().decompress(data, _BEGIN)
        if data.startswith(b"\xfd7zXZ"):
            return _first_of_xz(data)
    return b""


def _first_of_xz(data: bytes) -> bytes:
    import lzma

    with suppress(lzma.LZMAError):
        return lzma.LZMADecompressor(memlimit=_MOST_MEMORY).decompress(data, _BEGIN)
    return b""


def _tar(path: Path) -> str:
    import tarfile

    names = []
    with suppress(tarfile.TarError, ValueError, EOFError):
        with tarfile.open(path, "r:") as opened:
            while len(names) < _MOST_NAMES and (member := opened.next()) is not None:
                names.append(member.name)
    if {"storages", "tensors", "pickle"} <= {name.rpartition("/")[2] for name in names}:
        return "it is a tar file, as torch wrote before 0.1.10; load it with torch.load and save it with torch.save"
    return _inside(path, names, "a tar file", "tar -xf {}")


def _inside(path: Path, names: Iterable[str], what: str, command: str) -> str:
    """Name the checkpoint in an archive, and the command that takes it out."""
    unpack = command.format(_shell(path))
    files = [name for name in names if name.lower().endswith(_WEIGHTS) and name.isprintable()]
    if len(files) == 1:
        return f"it is {what} with the checkpoint `{files[0]}` in it; unpack it: `{unpack} {shlex.quote(files[0])}`"
    if files:
        return f"it is {what} with {len(files)} checkpoints in it ({listed(files)}); unpack it: `{unpack}`"
    return f"it is {what}, and no checkpoint is in it (0 records named data.pkl, as torch.save writes)"


def _repack(path: Path) -> str:
    at, out = _shell(path), shlex.quote(str(_out(path).resolve()))
    made = shlex.quote(f"{path.stem}_unpacked")
    return (
        "its records are compressed, or in no folder, which torch never does; pack them again: "
        f"`unzip {at} -d {made} && (cd {made} && zip -0 -r {out} .)`"
    )


def _text(path: Path, head: bytes) -> str | None:
    """Recognise what was saved in place of the file."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS in place of the file; run `git lfs pull`"
    if text[:9].lower() == b"<!doctype" or text[:5].lower() in (b"<html", b"<head", b"<body"):
        return "it is a web page, and not the file to download"
    if text[:5].lower() == b"<?xml" or text.startswith(b"<Error>"):
        is_model = path.suffix.lower() == ".xml" and b"<net" in text
        return (
            f"it is a model of OpenVINO; {_ORIGINAL}"
            if is_model
            else "it is an answer of a server in XML, and not the file to download"
        )
    if text[:1] in (b"{", b"["):
        with suppress(ValueError, RecursionError, UnicodeDecodeError):
            if path.stat().st_size <= len(head) and isinstance(json.loads(text), dict | list):
                return "it is text in JSON, and not the file to download"
        if head.isascii() and b'"' in head:
            return "it is text in JSON, and no checkpoint"
    return None


def _out(path: Path) -> Path:
    """Name what a command writes, in the working folder: the file without the suffixes of its packing."""
    stem = path.name
    while Path(stem).suffix.lower() in _NO_STEM:
        stem = Path(stem).stem
    made = Path(f"{stem}.pth")
    while made.exists():
        made = Path(f"{made.stem}_unpacked.pth")
    return made
