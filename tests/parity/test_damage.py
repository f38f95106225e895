"""A trace whose bytes changed after it was recorded: one clear line, or a verdict that stays what it was."""

import functools
import json
import shutil

import pytest
import torch

from legacy_adapters.recording.trace_writer import FORMAT_VERSION
from parity.comparing.evidence import load_spread
from parity.traces.kinds import Kind
from parity.traces.pieces import PIECE
from parity.traces.trace import Trace, TraceError

from .synthetic import Rec, write_trace

WHERE = ("--family", "mmdet_ddq", "--variant", "tiny_4scale")
TINY = dict(family="mmdet_ddq", variant="tiny_4scale")
EQUAL, OTHER = torch.linspace(0, 1, 3 * PIECE), torch.linspace(1, 2, 9 * PIECE)
MATCHES, DIFFERS = "MATCH", "MISMATCH"


@pytest.fixture
def sides(tmp_path):
    """Return a function that writes two traces: ``a`` is equal, ``b`` is a little off if they shall not match."""

    def write(outcome=DIFFERS):
        off = 0.0 if outcome == MATCHES else 0.25
        folders = tmp_path / "legacy", tmp_path / "new"
        for folder, change in zip(folders, (0.0, off)):
            write_trace(folder, Rec("module_out", "a", EQUAL), Rec("module_out", "b", OTHER + change), **TINY)
        return folders

    return write


def tensor_at(folder, name):
    """Return the path of the shard with the record's tensor, and where its bytes lie."""
    trace = Trace.load(folder)
    record = next(record for record in trace.records if record.name == name)
    index = json.loads((folder / "index.json").read_text())
    path = folder / index["shards"][record.digest]
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    offsets = json.loads(data[8:start])[record.digest]["data_offsets"]
    return path, start + offsets[0], start + offsets[1]


def flip(folder, name, place):
    """Change one bit of the tensor of the record ``name``, in its first, middle or last byte."""
    path, start, end = tensor_at(folder, name)
    with path.open("r+b") as file:
        file.seek({"first": start, "middle": (start + end) // 2, "last": end - 1}[place])
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def refused(result):
    assert result.exit_code == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    return line


FIXED = ("--tolerance", "fixed", "--rtol", "0", "--atol")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("outcome", [MATCHES, DIFFERS])
@pytest.mark.parametrize("damaged", [0, 1])
def test_flipped_bit_is_refused_with_verify_and_changes_no_exact_verdict(parity, sides, outcome, name, place, damaged):
    folders = sides(outcome)
    sound = parity("compare", *folders, *WHERE, "-q")
    flip(folders[damaged], name, place)
    assert f"`{name}` is not what was recorded" in refused(parity("compare", *folders, *WHERE, "--verify"))
    result = parity("compare", *folders, *WHERE, "-q")
    assert (result.stdout, result.exit_code) == (sound.stdout, sound.exit_code) and sound.stdout.startswith(outcome)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("damaged", [0, 1])
@pytest.mark.parametrize("atol", ["0.1", "0.5"])
def test_flipped_bit_of_what_a_tolerance_is_applied_to_is_refused(parity, sides, place, damaged, atol):
    folders = sides()
    flip(folders[damaged], "b", place)
    assert "module_out `b` is not what was recorded" in refused(parity("compare", *folders, *WHERE, *FIXED, atol))


@pytest.mark.parametrize("tolerance", [(), (*FIXED, "0.5")], ids=["exact", "fixed"])
def test_damage_that_makes_tensors_equal_does_not_make_them_match(parity, sides, tolerance):
    """Digests say that the tensors differed; bytes that say otherwise are not the ones that were recorded."""
    folders = sides()
    (one, start, end), (two, *_) = tensor_at(folders[0], "b"), tensor_at(folders[1], "b")
    content = one.read_bytes()[start:end]
    with two.open("r+b") as file:
        file.seek(tensor_at(folders[1], "b")[1])
        file.write(content)
    line = refused(parity("compare", *folders, *WHERE, *tolerance))
    assert f"{folders[1]}: the tensor of module_out `b` is not what was recorded" in line


@pytest.mark.parametrize("options", [(), (*FIXED, "0.5"), ("--verify",)], ids=["exact", "fixed", "verify"])
@pytest.mark.parametrize("outcome", [MATCHES, DIFFERS])
@pytest.mark.parametrize("change", ["cut", "longer", "header", "no header", "empty", "gone", "other", "renamed"])
def test_shard_that_is_not_whole_is_always_refused(parity, sides, tmp_path, change, outcome, options):
    folders = sides(outcome)
    (shard,) = folders[1].glob("*.safetensors")
    data = shard.read_bytes()
    if change == "gone":
        shard.unlink()
    elif change == "other":  # a whole shard of another trace
        write_trace(tmp_path / "foreign", Rec("module_out", "a", [1.0]))
        shutil.copy(tmp_path / "foreign" / shard.name, shard)
    elif change == "renamed":
        index = (folders[1] / "index.json").read_text()
        (folders[1] / "index.json").write_text(index.replace(shard.name, "trace-00002.safetensors"))
    else:
        changed = {
            "cut": data[:-1], "longer": data + b"\0", "header": data[:8] + b"[" + data[9:],
            "no header": b"\xff" * 8 + data[8:], "empty": b"",
        }  # fmt: skip
        shard.write_bytes(changed[change])
    line = refused(parity("compare", *folders, *WHERE, *options))
    assert str(folders[1]) in line and ("damaged" in line or "lacks its shard" in line)


@pytest.mark.parametrize("field", ["dtype", "shape"])
def test_index_that_says_otherwise_than_its_shard_is_refused(parity, sides, field):
    folders = sides()
    index = json.loads((folders[1] / "index.json").read_text())
    index["records"][0][field] = {"dtype": "I32", "shape": [1, 3 * PIECE]}[field]
    (folders[1] / "index.json").write_text(json.dumps(index))
    assert "is damaged" in refused(parity("compare", *folders, *WHERE))


RECORD, CALL, NUMBER = ("records", 0), ("coverage", "leaf_calls", 0), "expected a number from 0 on"
#: Place in the index, what is put there (``...`` takes it away), what the one line says.
ODD_FIELDS = [
    ((*CALL, "count"), "3", f"coverage.leaf_calls.count is '3', {NUMBER}"),
    ((*CALL, "count"), -3, f"coverage.leaf_calls.count is -3, {NUMBER}"),
    ((*CALL, "count"), True, f"coverage.leaf_calls.count is True, {NUMBER}"),
    ((*CALL, "name"), ..., "coverage.leaf_calls.name is missing, expected a string"),
    (CALL, [], "coverage.leaf_calls[0] is [], expected an object"),
    (("coverage", "without_gradient"), [3], "coverage.without_gradient[0] is 3, expected a string"),
    (("coverage", "frozen"), None, "coverage.frozen is None, expected a list"),
    (("coverage", "cut_off"), [["a"]], "coverage.cut_off[0] is ['a'], expected phase, kind, name, call and slot"),
    (("coverage", "classes"), {"a": 1}, "coverage.classes[a] is 1, expected a string"),
    ((*RECORD, "name"), None, "records[0].name is None, expected a string"),
    ((*RECORD, "kind"), "wish", f"records[0].kind is 'wish', expected one of {', '.join(Kind)}"),
    ((*RECORD, "phase"), ["x"], "records[0].phase is ['x'], expected a string"),
    ((*RECORD, "call"), "0", f"records[0].call is '0', {NUMBER}"),
    ((*RECORD, "call"), -1, f"records[0].call is -1, {NUMBER}"),
    ((*RECORD, "digest"), ..., "records[0].digest is missing, expected a string"),
    ((*RECORD, "shape"), [3.0], "the shape of a record is not made of numbers from 0 on"),
    (("records",), {}, "records is {}, expected a list"),
    (("provenance", "checks"), "forward", "provenance.checks is 'forward', expected a list"),
    (("provenance", "checks"), [["forward"]], "provenance.checks[0] is ['forward'], expected a string"),
    (("provenance", "steps"), "2", f"provenance.steps is '2', {NUMBER}"),
    (("provenance", "modules"), None, "provenance.modules is None, expected an object"),
    (("provenance",), [], "provenance[0] is [], expected an object"),
]


@pytest.mark.parametrize(("path", "value", "says"), ODD_FIELDS, ids=lambda part: str(part)[:40])
def test_index_with_a_field_of_another_type_is_refused(parity, tmp_path, path, value, says):
    folders = tmp_path / "legacy", tmp_path / "new"
    for folder in folders:  # both alike, so that it is not refused for a difference
        records = Rec("module_out", "a", EQUAL), Rec("module_out", "b", OTHER)
        write_trace(folder, *records, leaf_calls={"a": 3}, **TINY)
        index = json.loads((folder / "index.json").read_text())
        *parents, last = path
        place = functools.reduce(lambda part, key: part[key], parents, index)
        if value is ...:
            del place[last]
        else:
            place[last] = value
        (folder / "index.json").write_text(json.dumps(index))
    assert f"is malformed: {says}; record the trace again." in refused(parity("compare", *folders, *WHERE))


def test_shard_that_shrinks_while_it_is_compared_is_an_error(sides):
    folder = sides()[1]
    trace = Trace.load(folder)
    (shard,) = folder.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(TraceError, match="it ends before byte"):
        trace.tensor(trace.records[1])


def test_what_is_read_of_a_checked_trace_is_checked(sides):
    folder = sides()[1]
    flip(folder, "b", "last")
    plain, checked = Trace.load(folder), Trace.load(folder, checked=True)
    assert plain.tensor(plain.records[1]).shape == OTHER.shape
    for read in (checked.tensor, lambda record: list(checked.stored(record).pieces())):
        read(checked.records[0])
        with pytest.raises(TraceError, match="`b` is not what was recorded"):
            read(checked.records[1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:-9], "cannot be read: "),
        (lambda text: "[]", "is malformed: AttributeError "),
        (lambda text: json.dumps(dict(format_version=FORMAT_VERSION)), "is malformed: KeyError 'provenance'."),
        (lambda text: json.dumps({**json.loads(text), "shards": {}}), "names no shard for module_out `a`."),
    ],
    ids=["cut", "list", "version only", "no shards"],
)
def test_index_that_is_not_whole_is_refused_in_one_line(parity, sides, change, says):
    folders = sides()
    path = folders[1] / "index.json"
    path.write_text(change(path.read_text()))
    assert f"{path} {says}" in refused(parity("compare", *folders, *WHERE))


def test_shard_whose_header_tells_other_places_is_refused(parity, sides):
    folders = sides()
    path, *_ = tensor_at(folders[1], "b")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    next(entry for entry in header.values() if "data_offsets" in entry)["data_offsets"][1] -= 4
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])
    line = refused(parity("compare", *folders, *WHERE))
    assert f"{path} is damaged: its header cannot be read (ValueError)" in line


def test_shard_that_is_gone_when_it_is_read_is_an_error(sides):
    folder = sides()[1]
    trace = Trace.load(folder)
    (shard,) = folder.glob("*.safetensors")
    shard.unlink()
    with pytest.raises(TraceError, match=f"{shard} cannot be read: "):
        trace.tensor(trace.records[1])


@pytest.mark.parametrize("content", [None, "[[1]", "[[1, 2]]", "3"], ids=["gone", "cut", "short", "number"])
def test_errors_of_rounding_that_cannot_be_read_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "spread.json").write_text(content)
    with pytest.raises(TraceError, match=r"spread.json cannot be read \(.*\); make the run again"):
        load_spread(tmp_path / "spread.json")
