"""Files that were made to take much time or memory: they are read or refused in little of both."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.converters.crafted import (
    called,
    found,
    mapped,
    number,
    pushed,
    safetensors,
    tensor,
    text,
    torch_legacy,
    torch_zip,
    whole,
    written,
    zipped,
)

REPO = Path(__file__).resolve().parents[2]
_MOST_GROWN = 200  # MiB; the largest of these files has 50


def _put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def _get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def _kept(index: int, fragment: bytes) -> bytes:
    """Put into the memo what a fragment pushes, and take it off the stack."""
    return fragment + _put(index) + b"0"


def _laughs(make: bytes, levels: int) -> bytes:
    """Push containers of two, each with the one before in both places."""
    steps = (b"(" + _get(level) + _get(level) + make + _put(level + 1) + b"0" for level in range(levels))
    return number(1) + _put(0) + b"0" + b"".join(steps) + _get(levels)


def _list_of(items: bytes) -> bytes:
    return b"](" + items + b"e"


_ODD = b"".join(number(index * (2**61 - 1)) + b"N" for index in range(20_000))
# Pickles, or parts of one, and what is said of them; nothing where they are read.
WHOLE: dict[str, tuple[bytes, str]] = {
    "memo numbered absurdly": (whole(b"}" + _put(2**32 - 1)), "holds no tensors"),
    "text of 2^62 bytes": (whole(b"\x8d" + struct.pack("<Q", 2**62), 4), "declares 4611686018427387904 bytes"),
    "text of 4 GB": (whole(b"X\xff\xff\xff\xff"), "declares 4294967295 bytes"),
    "bytes of 2^62": (whole(b"\x8e" + struct.pack("<Q", 2**62), 4), "declares 4611686018427387904 bytes"),
    "bytearray of 2^40": (whole(b"\x96" + struct.pack("<Q", 2**40), 5), "declares 1099511627776 bytes"),
    "number of 2 GB": (whole(b"\x8b\xff\xff\xff\x7f"), "declares 2147483647 bytes"),
    "number of 1 MB": (whole(b"\x8b" + struct.pack("<I", 1 << 20) + b"\x01" * (1 << 20)), "a whole number of 1048576"),
    "number of 1 000 000 digits": (whole(b"I" + b"1" * 10**6 + b"\n"), "Exceeds the limit"),
    "old number of 1 000 000 digits": (whole(b"L" + b"1" * 10**6 + b"L\n"), "Exceeds the limit"),
    "frame of 2^60": (whole(b"\x95" + struct.pack("<Q", 2**60) + b"}", 4), "declares a frame of 1152921504606846976"),
    "buffer out of band": (whole(b"\x97", 5), "unknown opcode 0x97"),
    "line without end": (whole(b"c" + b"a" * 10**6), "a line without an end"),
    "line of 10 MB": (whole(b"V" + b"a" * 10**7 + b"\n"), "a line without an end, or of more than 1048576 bytes"),
    "600 000 marks": (whole(b"(" * 600_000), "more than 500000 containers"),
    "3 000 000 opcodes": (whole(b"N0" * 1_500_000 + b"}"), "more than 2000000 opcodes"),
    "too few things": (whole(b"}aaaa"), "its pickle is malformed"),
    "no things": (whole(b"0"), "its pickle is malformed"),
    "things left over": (whole(b"}}"), "leaves something over"),
    "unknown memo": (whole(b"h\x07"), "its pickle is malformed"),
    "unknown opcode": (whole(b"\xff"), "unknown opcode 0xff"),
    "a storage of 2^61": (whole(mapped(x=tensor(numel=2**61))), "storage 0 declares 9223372036854775808 bytes"),
    "a shape of 2^61": (whole(mapped(x=tensor(shape=(2**61,)))), "reaches beyond its storage of 4 elements"),
    "2^40 times the same": (whole(mapped(x=tensor(shape=(2**40,), stride=(0,)))), "repeats its elements"),
    "a shape of 2^122": (whole(mapped(x=tensor((2**61, 2**61), (0, 0)))), "repeats its elements"),
    "an empty shape of 2^61": (whole(mapped(x=tensor((2**61, 0), (0, 0)))), ""),
    "a negative stride": (whole(mapped(x=tensor((3,), (-1,), 3))), "something else than a storage and whole numbers"),
    "a negative shape": (whole(mapped(x=tensor((-3,)))), "something else than a storage and whole numbers"),
    "a shape that is a bool": (whole(mapped(x=tensor((True,)))), "something else than a storage and whole numbers"),
    "an unknown storage": (whole(mapped(x=tensor(key="7"))), "storage 7 declares 16 bytes, there is no such record"),
    "a path for a storage": (whole(mapped(x=tensor(key="/../../a"))), "there is no such record"),
    "a class for a storage": (whole(mapped(x=tensor(kind="os.system"))), "not described by a key and a whole number"),
    "50 000 tensors of one storage": (
        whole(
            b"}"
            + (b"(" + text("storage") + found("torch.FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ")
            + _put(1)
            + b"0"
            + found("torch._utils._rebuild_tensor")
            + _put(2)
            + b"0("
            + b"".join(
                text(f"k{index}") + _get(2) + b"(" + _get(1) + b"K\x00K\x04\x85K\x01\x85tR" for index in range(50_000)
            )
            + b"u"
        ),
        "",
    ),
}
BESIDE: dict[str, tuple[bytes, str]] = {
    "bytearray(10**12)": ((called(found("builtins.bytearray"), number(10**12))), "bytes are made of a int"),
    "range(10**12)": ((called(found("builtins.range"), number(10**12))), ""),
    "zlib bomb by codec": ((called(found("_codecs.decode"), pushed(b"x" * 99), text("zlib"))), ""),
    "billion laughs elsewhere": ((_laughs(b"l", 60)), ""),
    "billion laughs as a key": ((b"}" + _laughs(b"t", 60) + b"Ns"), "has a tuple as a key"),
    "billion laughs in a set": ((b"\x8f(" + _laughs(b"t", 60) + b"\x90"), "has a tuple as a key"),
    "keys that collide": ((b"}(" + _ODD + b"u"), "has more than 4096 keys"),
    "keys that collide in a set": ((b"\x8f(" + _ODD + b"\x90"), "has more than 4096 keys"),
    "keys that collide, in an ordered dict": (
        (
            called(
                found("collections.OrderedDict"),
                _list_of(b"".join(number(index * (2**61 - 1)) + b"N\x86" for index in range(20_000))),
            )
        ),
        "has more than 4096 keys",
    ),
    "dicts copied": (
        (
            _list_of(b"".join(number(index) + b"N\x86" for index in range(20_000)))
            + _put(1)
            + b"0"
            + found("collections.OrderedDict")
            + _put(2)
            + b"0"
            + _list_of((_get(2) + _get(1) + b"\x85R") * 20_000)
        ),
        "copied again and again",
    ),
    "text encoded": (
        (
            text("a" * 10**6)
            + text("latin1")
            + b"\x86"
            + _put(1)
            + b"0"
            + found("_codecs.encode")
            + _put(2)
            + b"0"
            + _list_of((_get(2) + _get(1) + b"R") * 20_000)
        ),
        "copied again and again",
    ),
    "lists nested deep": ((b"]" * 400_000 + b"a" * 399_999), ""),
    "tuples nested deep": ((b")" + b"\x85" * 400_000), ""),
    "dicts nested deep": ((b"}" + b"K\x01}" * 200_000 + b"s" * 200_000), ""),
    "calls nested deep": (
        (_kept(1, found("os.system")) + _kept(3, b"N") + _kept(3, _get(1) + _get(3) + b"\x85R") * 50_000 + _get(3)),
        "",
    ),
    "rebuilds nested deep": (
        (
            _kept(1, found("torch._tensor._rebuild_from_type_v2"))
            + _kept(2, found("torch.Tensor"))
            + _kept(3, b")")
            + _kept(3, b"(" + _get(1) + _get(2) + _get(3) + b"Nt") * 20_000
            + _get(1)
            + _get(3)
            + b"R"
        ),
        "",
    ),
    "600 000 sets": ((_list_of(b"\x8f" * 600_000)), "more than 500000 containers"),
    "400 000 calls": ((found("os.system") + _put(1) + b"0" + _list_of((_get(1) + b")R") * 400_000)), ""),
    "20 000 globals": ((_list_of(b"".join(found(f"m.{index}") for index in range(20_000)))), "absurdly many"),
    "a long global": ((found("m." + "a" * 10**6)), "absurdly long"),
    "class as a container": ((found("sys.modules") + b"(NNu"), "items are put into a Foreign"),
    "state of a class": ((found("os.system") + b"}b"), "a state is set in a Foreign"),
    "400 000 dimensions": (
        (
            called(
                found("torch._utils._rebuild_tensor_v2"),
                b"(" + text("storage") + found("torch.FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ",
                number(0),
                b"(" + b"K\x01" * 400_000 + b"t",
                b"(" + b"K\x01" * 400_000 + b"t",
            )
        ),
        "has 400000 dimensions",
    ),
    "an array of 2^40": (
        (
            called(found("numpy.core.multiarray._reconstruct"), found("numpy.ndarray"), pushed((0,)), pushed(b"b"))
            + b"("
            + number(1)
            + pushed((2**40,))
            + called(found("numpy.dtype"), text("f8"))
            + b"\x89"
            + b"C\x0812345678"
            + b"tb"
        ),
        "reaches beyond its storage of 1 elements",
    ),
}
IN_META: dict[str, tuple[bytes, str]] = {
    "billion laughs": ((_laughs(b"l", 60)), "its metadata unfold to more than"),
    "billion laughs of tuples": ((_laughs(b"t", 60)), "its metadata unfold to more than"),
    "long text again and again": (
        (text("a" * 10**5) + _put(1) + b"0" + _list_of(_get(1) * 10**5)),
        "its metadata unfold to more than",
    ),
    "lists nested deep in meta": ((b"]" * 400_000 + b"a" * 399_999), ""),
    "long names again and again": (
        _kept(1, text("a" * 10**5)) + _kept(2, found("os.system")) + b"}" + _get(1) + _list_of(_get(2) * 10**5) + b"s",
        "its metadata unfold to more than",
    ),
    "list in itself": ((b"]" + _put(1) + _get(1) + b"a"), ""),
    "dict in itself": ((b"}" + _put(1) + text("a") + _get(1) + b"s"), ""),
}


def _patched(data: bytes, name: str, field: int, value: int, size: int = 4) -> bytes:
    """Change a number of a record's entry in the zip directory; `field` is its place in the entry."""
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    return data[: at + field] + value.to_bytes(size, "little") + data[at + field + size :]


def _end(data: bytes, field: int, value: int, size: int) -> bytes:
    at = data.rindex(b"PK\x05\x06")
    return data[: at + field] + value.to_bytes(size, "little") + data[at + field + size :]


def _linked() -> bytes:
    """Make a file whose storage is a symbolic link for who would unpack it."""
    return _patched(torch_zip(_STATE), "a/data/0", 38, 0o120777 << 16)


def _quoted() -> bytes:
    """Make a file with a record inside of another one."""
    inner = torch_zip(_STATE)
    outer = zipped({"a/data.pkl": _STATE, "a/data/0": inner, "a/data/1": b"1234"})
    entry = outer.index(b"PK\x03\x04", outer.index(b"a/data/0"))
    return _patched(outer, "a/data.pkl", 42, entry)


_STATE = whole(mapped(state_dict=mapped(x=tensor())))
_ZEROS = {"a/data.pkl": _STATE, "a/data/0": bytes(200_000_000)}
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip bomb": (lambda: zipped(_ZEROS, zipfile.ZIP_DEFLATED), "its records are compressed"),
    "zip bomb in the pickle": (
        lambda: zipped({"a/data.pkl": bytes(200_000_000)}, zipfile.ZIP_DEFLATED),
        "its records are compressed",
    ),
    "compressed and not marked": (
        lambda: _patched(zipped({"a/data.pkl": bytes(10**6)}, zipfile.ZIP_DEFLATED), "a/data.pkl", 10, 0, 2),
        "its records are compressed",
    ),
    "record of 4 GB": (
        lambda: _patched(_patched(torch_zip(_STATE), "a/data/0", 20, 2**32 - 2), "a/data/0", 24, 2**32 - 2),
        "ends beyond the file",
    ),
    "large record without its length": (
        lambda: _patched(torch_zip(_STATE), "a/data/0", 24, 2**32 - 1),
        "a large record without its length",
    ),
    "records overlap": (_quoted, "overlaps another one"),
    "a record twice": (lambda: _twice(), "its record a/data/0 stands in it twice"),
    "two pickles": (lambda: zipped({"a/data.pkl": _STATE, "b/data.pkl": _STATE}), "2 records named data.pkl"),
    "record behind the file": (lambda: _patched(torch_zip(_STATE), "a/data/0", 42, 10**9), "zip directory is damaged"),
    "encrypted record": (lambda: _patched(torch_zip(_STATE), "a/data/0", 8, 1, 2), "its records are encrypted"),
    "directory of 4 GB": (lambda: _end(torch_zip(_STATE), 12, 2**32 - 2, 4), "its zip directory declares 4294967294"),
    "65 534 records": (lambda: _end(torch_zip(_STATE), 10, 65_534, 2), "declares 65534 records and lists 2"),
    "large form missing": (lambda: _end(torch_zip(_STATE), 10, 65_535, 2), "without the large form"),
    "path upwards": (lambda: zipped({"../../x/data.pkl": _STATE, "../../x/data/0": bytes(16)}), ""),
    "absolute path": (lambda: zipped({"/etc/data.pkl": _STATE, "/etc/data/0": bytes(16)}), ""),
    "symbolic link": (_linked, ""),
    "old: view beyond its storage": (
        lambda: torch_legacy(whole(mapped(x=tensor(view=pushed(("v", 2, 4)))))),
        "reaches beyond its 16 bytes",
    ),
    "old: negative view": (
        lambda: torch_legacy(whole(mapped(x=tensor(view=pushed(("v", -2, 4)))))),
        "something else than whole numbers",
    ),
    "old: storage of 2^61": (
        lambda: torch_legacy(whole(mapped(x=tensor(numel=2**61)))),
        "declares 9223372036854775808",
    ),
    "old: storage longer than said": (
        lambda: torch_legacy(_STATE, {"0": bytes(32)}),
        "storage 0 declares 16 bytes, the file has 32",
    ),
    "old: storages of other names": (lambda: torch_legacy(_STATE, {"1": bytes(16)}), "list of its storages"),
    "old: big-endian": (lambda: torch_legacy(_STATE, machine={"little_endian": False}), "big-endian"),
    "old: no facts": (lambda: torch_legacy(_STATE, machine=[]), "header is damaged"),
    "header of 2^63": (lambda: (2**63).to_bytes(8, "little") + b"{}", "header declares 9223372036854775808 bytes"),
    "header of 50 MB": (lambda: safetensors(b"{" + b" " * 50_000_000 + b"}"), "expected at most 6000000"),
    "header nested deep": (lambda: safetensors(b'{"a":' * 10**6), "its header is damaged"),
    "header of lists": (lambda: safetensors(b'{"a":[' + b"[]," * 1_900_000 + b"[]]}"), "has no shape"),
    "number of 10 000 digits": (
        lambda: safetensors(b'{"a":{"dtype":"F32","shape":[' + b"1" * 10_000 + b'],"data_offsets":[0,4]}}'),
        "its header is damaged",
    ),
    "shape of 2^61": (
        lambda: safetensors({"a": {"dtype": "F32", "shape": [2**61], "data_offsets": [0, 4]}}, bytes(4)),
        "reaches beyond its storage of 1 elements",
    ),
    "keys of one place": (
        lambda: safetensors({key: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for key in "ab"}, bytes(4)),
        "begins at byte 0, expected 4",
    ),
}


def _twice() -> bytes:
    data = zipped({"a/data.pkl": _STATE, "a/data/0": bytes(16), "a/data/1": bytes(16)})
    return data.replace(b"a/data/1", b"a/data/0")


def _cases() -> dict[str, tuple[bytes, str]]:
    """Return all files and what is said of them."""
    state = mapped(x=tensor())
    pickles = WHOLE | {
        **{name: (whole(mapped(state_dict=state, bad=part), 4), said) for name, (part, said) in BESIDE.items()},
        **{
            name: (whole(mapped(state_dict=state, meta=mapped(a=part)), 4), said)
            for name, (part, said) in IN_META.items()
        },
    }
    return {
        **{name: (torch_zip(data), said) for name, (data, said) in pickles.items()},
        **{
            f"{name}, old": (torch_legacy(data), said)
            for name, (data, said) in pickles.items()
            if name not in _ZIP_ONLY
        },
        **{name: (make(), said) for name, (make, said) in FILES.items()},
    }


_ZIP_ONLY = ("memo numbered absurdly", "an unknown storage", "a path for a storage")
_CASES = [*WHOLE, *BESIDE, *IN_META, *FILES]
_CASES += [f"{name}, old" for name in (*WHOLE, *BESIDE, *IN_META) if name not in _ZIP_ONLY]


def _run(commands: list[list[str]], folder: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(REPO / "tests" / "converters" / "limited.py")],
        input="".join(f"{json.dumps(command)}\n" for command in commands),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "NO_COLOR": "1"},
        check=True,
        cwd=folder,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, object], str]]:
    """Inspect every file once; return how it ended and what is to be said."""
    folder, cases = tmp_path_factory.mktemp("bombs"), _cases()
    paths = {name: written(folder / str(index), data) for index, (name, (data, _)) in enumerate(cases.items())}
    found = _run([["inspect", str(path)] for path in paths.values()], folder)
    assert set(folder.iterdir()) == set(paths.values())
    shutil.rmtree(folder)
    return {name: (outcome, said) for (name, (_, said)), outcome in zip(cases.items(), found, strict=True)}


@pytest.mark.parametrize("name", _CASES)
def test_bombs_are_read_or_refused_in_little_space(
    name: str, inspected: dict[str, tuple[dict[str, object], str]]
) -> None:
    outcome, said = inspected[name]
    assert outcome["code"] == (2 if said else 0), outcome
    lines = str(outcome["stderr"]).splitlines()
    assert len(lines) == (1 if said else 0), outcome
    assert said in (lines[0] if lines else ""), outcome
    assert float(str(outcome["grown"])) < _MOST_GROWN, outcome


_CARRIED = (
    "range(10**12)",
    "billion laughs",
    "billion laughs of tuples",
    "long text again and again",
    "long names again and again",
    "lists nested deep",
    "dicts nested deep",
    "calls nested deep",
    "list in itself",
    "dict in itself",
    "400 000 calls",
)


@pytest.mark.parametrize(
    "place, suffix",
    [(place, ".pth") for place in ("optimizer", "param_schedulers", "message_hub", "ema_state_dict", "other")]
    + [("meta", ".safetensors")],
)
def test_bombs_beside_a_model_are_carried_or_refused_in_little_space(
    tmp_path: Path, make_state: Callable[..., dict[str, Tensor]], place: str, suffix: str
) -> None:
    """They stand beside weights that fit, in places whose content is copied."""
    buffer = io.BytesIO()
    torch.save(make_state(), buffer)
    with zipfile.ZipFile(buffer) as archive:
        records = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
    state = records.pop("data.pkl")[2:-1]
    storages = {name.removeprefix("data/"): data for name, data in records.items() if name.startswith("data/")}
    commands = []
    for index, name in enumerate(_CARRIED):
        part, _ = (BESIDE | IN_META)[name]
        data = whole(mapped(**{"state_dict": state, place: mapped(a=part, state=part, param_groups=part)}), 4)
        path = written(tmp_path / f"{index}", torch_zip(data, storages))
        commands.append(["convert", str(path), f"{path}{suffix}"])
    for name, outcome in zip(_CARRIED, _run(commands, tmp_path), strict=True):
        lines = str(outcome["stderr"]).splitlines()
        assert outcome["code"] in (0, 1, 2) and len(lines) == (1 if outcome["code"] else 0), (name, outcome)
        assert float(str(outcome["grown"])) < _MOST_GROWN, (name, outcome)
