"""`check` and `capture`: whatever is wrong is one line and exit code 2, and nothing is written."""

import random
import tempfile
from dataclasses import replace

import pytest
import torch

from converters.rules.ports import Port
from legacy_adapters.launch import SideError
from parity.cli import commands
from parity.golden import golden
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import prepare
from tests.models import port

from .golden_files import RECORDS, recording, rewritten

TINY = Task(port("mmdet_ddq", "tiny_4scale"), ((64, 64),), None, 0, ("forward",))
CPU = Machine("cpu", 1, None, 60.0)


@pytest.fixture
def recorded(tmp_path):
    """Return a golden recording of hand-written traces."""
    return recording(tmp_path)


@pytest.fixture
def saved(recorded, tmp_path):
    """Return the path of its file."""
    path = tmp_path / "file.npz"
    golden.save(recorded, path)
    return path


@pytest.fixture(scope="module")
def tiny_given():
    """Return the digests of the seeded weights and inputs of the tiny model."""
    return golden.digests(prepare(TINY, Sources(), CPU))


@pytest.fixture
def tiny_golden(recorded, tiny_given, tmp_path):
    """Return a function that writes a golden file of the tiny model, changed as asked."""

    def write(**changes):
        path = tmp_path / "tiny.npz"
        golden.save(replace(recorded, **{"task": TINY, "sources": tiny_given, **changes}), path)
        return path

    return write


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """Check afterwards that nothing was written, to the test's folder or the temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()

    def state():
        return {path: path.read_bytes() if path.is_file() else None for path in tmp_path.rglob("*")}

    def check(call):
        before = state()
        result = call()
        assert state() == before
        return result

    return check


def one_line(result):
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2 and not result.stdout, result.output
    return line


@pytest.mark.parametrize("case", ["missing", "folder", "random", "cut", "version", "traces"])
def test_check_of_a_bad_file(parity, untouched, saved, tmp_path, case):
    path, says = tmp_path / "g.npz", "is not a golden file or is damaged"
    if case == "missing":
        says = "g.npz"
    elif case == "folder":
        path, says = tmp_path, "is a directory"
    elif case == "random":
        path.write_bytes(random.Random(1).randbytes(3000))
    elif case == "cut":
        path.write_bytes(saved.read_bytes()[:-100])
    elif case == "version":
        rewritten(saved, path, lambda arrays, header: header.update(format_version=9))
        says = "has format version 9; expected 3: record it again"
    else:
        path = tmp_path / "legacy" / "trace-00001.safetensors"
    assert says in one_line(untouched(lambda: parity("check", path, "--out", tmp_path / "out")))


@pytest.mark.parametrize("what", ["weights", "inputs"])
def test_check_with_other_weights_or_inputs(parity, untouched, tiny_golden, tiny_given, tmp_path, what):
    path = tiny_golden(sources={**tiny_given, what: "0" * 64})
    assert f"recorded with other {what}" in one_line(untouched(lambda: parity("check", path)))


def test_check_with_other_weights_keeps_the_earlier_run(parity, untouched, tiny_golden, tiny_given, tmp_path):
    path = tiny_golden(sources={**tiny_given, "weights": "0" * 64})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    result = untouched(lambda: parity("check", path, "--out", tmp_path / "out", "--force"))
    assert "recorded with other weights" in one_line(result)


@pytest.mark.parametrize(
    ("changes", "says"),
    [(dict(family="mask_rcnn"), "mask_rcnn"), (dict(variant="huge"), "huge")],
    ids=["family", "variant"],
)
def test_check_of_a_task_that_does_not_exist(parity, untouched, tiny_golden, changes, says):
    of = TINY.port
    other = Port(replace(of.family, name=changes.get("family", of.family.name)),
                 replace(of.variant, name=changes.get("variant", of.variant.name)))  # fmt: skip
    path = tiny_golden(task=replace(TINY, port=other))
    assert says in one_line(untouched(lambda: parity("check", path)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--checkpoint", "missing.pth"), "missing.pth"),
        (("--new-adapter", "missing.py"), "missing.py"),
        (("--threads", "0"), "--threads"),
        (("--device", "tpu"), "tpu"),
        (("--time-limit", "0"), "--time-limit"),
        (("--tolerance", "exact"), "--tolerance"),
        (("--seed", "1"), "--seed"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_check_with_bad_options(parity, untouched, tiny_golden, tmp_path, arguments, says):
    path = tiny_golden()
    assert says in one_line(untouched(lambda: parity("check", path, "--out", tmp_path / "out", *arguments)))


@pytest.mark.parametrize("inside", ["run.json", "thesis.tex"])
def test_check_keeps_what_is_in_its_folder(parity, untouched, tiny_golden, tmp_path, inside):
    path = tiny_golden()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / inside).write_text("{}")
    line = one_line(untouched(lambda: parity("check", path, "--out", tmp_path / "out")))
    assert ("--force" in line) is (inside == "run.json")


CAPTURE = ("--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", "64x64", "--check", "forward")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--family", "ddq_detr", "--variant", "tiny_4scale"), "--legacy-repo"),
        (("--family", "ddq_detr", "--variant", "tiny_4scale", "--legacy-repo", "nowhere"), "is not a folder"),
        ((*CAPTURE, "--legacy-repo", "."), "leave --legacy-repo out"),
        ((*CAPTURE, "--checkpoint", "missing.pth"), "missing.pth"),
        ((*CAPTURE, "--objects", "1,2"), "--objects gives 2 numbers for 1 image"),
        ((*CAPTURE, "--size", "8x8"), "--size"),
        ((*CAPTURE, "--check", "everything"), "--check"),
        ((*CAPTURE, "--seed", "-1"), "--seed"),
        ((*CAPTURE, "--legacy-python", "missing"), "missing"),
        ((*CAPTURE, "--tolerance", "exact"), "--tolerance"),
        (("--family", "mask_rcnn", "--variant", "tiny_4scale"), "mask_rcnn"),
        (("--family", "mmdet_ddq", "--variant", "huge"), "huge"),
        (("--family", "mmdet_ddq"), "--variant"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_capture_with_bad_options(parity, untouched, tmp_path, arguments, says):
    assert says in one_line(untouched(lambda: parity("capture", tmp_path / "g.npz", *arguments)))


def test_capture_into_a_folder_that_is_not_there(parity, untouched, tmp_path):
    line = one_line(untouched(lambda: parity("capture", tmp_path / "no" / "g.npz", *CAPTURE)))
    assert "is not a folder" in line


def test_capture_into_a_folder(parity, untouched, tmp_path):
    assert "is a directory" in one_line(untouched(lambda: parity("capture", tmp_path, *CAPTURE, "--force")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_device_that_is_not_there(parity, untouched, tiny_golden, tmp_path):
    path = tiny_golden()
    for command in (("check", path), ("capture", tmp_path / "g.npz", *CAPTURE)):
        assert "not available" in one_line(untouched(lambda c=command: parity(*c, "--device", "cuda")))


@pytest.fixture
def no_models(monkeypatch, recorded):
    """Let ``capture`` give a hand-written recording and list its calls."""
    calls = []

    def fake(task, sources, machine, prepared, folder, progress):
        calls.append(task)
        progress("running nothing")
        return recorded

    monkeypatch.setattr(commands.golden_runs, "capture", fake)
    return calls


def test_capture_keeps_an_earlier_file_without_force(parity, untouched, no_models, saved):
    assert "--force" in one_line(untouched(lambda: parity("capture", saved, *CAPTURE)))
    assert no_models == []


def test_capture_replaces_it_with_force(parity, no_models, recorded, saved):
    saved.write_bytes(b"earlier")
    result = parity("capture", saved, *CAPTURE, "--force", "--seed", "5")
    assert result.exit_code == 0 and result.stderr == "running nothing ...\n"
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"CAPTURED {len(RECORDS)} records of mmdet_ddq tiny_1class -> {saved}")
    assert golden.load(saved).records == recorded.records
    assert [(task.seed, task.sizes, task.checks) for task in no_models] == [(5, ((64, 64),), ("forward",))]


def test_quiet_capture_says_nothing_but_the_outcome(parity, no_models, tmp_path):
    result = parity("capture", tmp_path / "g.npz", *CAPTURE, "-q")
    assert result.exit_code == 0 and not result.stderr and result.stdout.startswith("CAPTURED ")


def test_capture_that_crashes_keeps_the_earlier_file(parity, untouched, saved, monkeypatch):
    def crash(*arguments):
        raise SideError("legacy", "crashed: RuntimeError: the old code broke", "")

    monkeypatch.setattr(commands.golden_runs, "capture", crash)
    result = untouched(lambda: parity("capture", saved, *CAPTURE, "--force", "-q"))
    assert result.exit_code == 4 and not result.stdout
    assert result.stderr == "error: The legacy side crashed: RuntimeError: the old code broke\n"


def test_recording_of_another_family_is_refused(parity, saved):
    result = parity("check", saved, "--family", "ddq_detr")
    assert result.exit_code == 2
    assert "was recorded for family mmdet_ddq, and --family ddq_detr is family ddq_detr" in result.stderr
