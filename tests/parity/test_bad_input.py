"""Whatever a user gets wrong: one clear line, the documented exit code, nothing written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from tests.models import weights_of

FILES = ("projects/models/ddq_detr.py", "mmdet/__init__.py", "mmengine/__init__.py", "mmcv-2.0.0rc4/mmcv/__init__.py")


def fake_repo(folder, code):
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder


def run_official(parity, tmp_path, repo, *arguments):
    return parity(
        "run", "--family", "ddq_detr", "--variant", "tiny_4scale", "--size", "64x64", "--legacy-repo", repo,
        "--out", tmp_path / "out", "-q", *arguments,
    )  # fmt: skip


def one_line(result):
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.output
    return lines[0]


def test_repo_that_is_not_there(parity, tmp_path):
    result = run_official(parity, tmp_path, tmp_path / "nowhere")
    assert result.exit_code == 2 and "is not a folder" in one_line(result)


def test_repo_that_is_another_one(parity, tmp_path):
    (tmp_path / "repo").mkdir()
    result = run_official(parity, tmp_path, tmp_path / "repo")
    assert result.exit_code == 2
    assert "has no projects/models/ddq_detr.py" in one_line(result) and "branch ddq_detr" in one_line(result)


def test_repo_that_is_needed(parity, tmp_path):
    result = parity("run", "--family", "ddq_detr", "--variant", "tiny_4scale")
    assert result.exit_code == 2 and "--legacy-repo" in one_line(result)


def test_repo_that_crashes_shows_the_last_lines_of_its_traceback(parity, tmp_path):
    repo = fake_repo(tmp_path / "repo", "raise RuntimeError('the old code broke')")
    result = run_official(parity, tmp_path, repo)
    assert result.exit_code == 4
    *traceback, last = result.stderr.splitlines()
    assert last == "error: The legacy side crashed: RuntimeError: the old code broke"
    assert any("mmdet/__init__.py" in line for line in traceback) and all(line.startswith("  | ") for line in traceback)


def test_repo_that_calls_exit_is_a_crash(parity, tmp_path):
    result = run_official(parity, tmp_path, fake_repo(tmp_path / "repo", "raise SystemExit(0)"))
    assert result.exit_code == 4 and "SystemExit" in result.stderr


def test_repo_that_kills_the_process_is_a_crash(parity, tmp_path):
    result = run_official(parity, tmp_path, fake_repo(tmp_path / "repo", "import os; os.abort()"))
    assert result.exit_code == 4 and "ended without a report" in result.stderr


def test_repo_that_hangs_is_stopped(parity, tmp_path):
    repo = fake_repo(tmp_path / "repo", "import time; time.sleep(600)")
    result = run_official(parity, tmp_path, repo, "--time-limit", "8")
    assert result.exit_code == 4 and "time limit of 8 s" in result.stderr.splitlines()[-1]


def test_interpreter_without_torch_is_a_crash_that_says_so(parity, tmp_path):
    venv_less = tmp_path / "python"
    venv_less.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    venv_less.chmod(0o755)
    result = run_official(parity, tmp_path, fake_repo(tmp_path / "repo", ""), "--legacy-python", venv_less)
    assert result.exit_code == 4 and "No module named" in result.stderr.splitlines()[-1]


def checkpoint(tmp_path, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


def with_classes(count):
    weights = weights_of("tiny_4scale", 0, side="legacy")
    for key, value in weights.items():
        if "cls_branches" in key or "label_embedding" in key:
            weights[key] = torch.zeros(count, *value.shape[1:])
    return weights


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "weights.pth"),
        (b"hello", "weights.pth"),
        ({"state_dict": {"a": torch.zeros(2)}}, ""),
        ({"state_dict": with_classes(5)}, "5 classes"),
    ],
    ids=["missing", "not a checkpoint", "wrong family", "wrong class count"],
)
def test_checkpoint_that_does_not_fit(tiny, tmp_path, content, says):
    path = tmp_path / "weights.pth" if content is None else checkpoint(tmp_path, content)
    result = tiny("--checkpoint", path, "-q")
    assert result.exit_code == 2 and says in one_line(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", "12"),
        ("--size", "8x8"),
        ("--size", "100000x100000"),
        ("--seed", "99999999999999999999"),
        ("--objects", "1"),
        ("--objects", "1,-2"),
        ("--check", "backward"),
        ("--device", "tpu"),
        ("--variant", "r101"),
        ("--threads", "0"),
        ("--time-limit", "0"),
        ("--new-adapter", "nowhere.py"),
    ],
    ids=" ".join,
)
def test_option_that_makes_no_sense(parity, arguments):
    result = parity("run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *arguments)
    assert result.exit_code == 2 and arguments[0] in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--check", "train", "--isolate"), "Steps of a training cannot be isolated; check forward, loss or grad"),
        (("--size", "64x64", "--objects", "20000"), "Objects (20000,) are not a number from 0 to 10000"),
        (("--rtol", "1"), "--rtol goes with --tolerance fixed, not exact"),
        (("--tolerance", "derived", "--atol", "0"), "--atol goes with --tolerance fixed, not derived"),
        (("--force",), "--force needs --out"),
        (("--ranks", "2", "--isolate"), "Steps of a training cannot be isolated; leave --isolate or --ranks out."),
        (("--ranks", "2", "--resume-at", "2"), "is not stopped and resumed; leave --resume-at or --ranks out."),
        (("--ranks", "2", "--check", "grad,train"), "run check grad without --ranks"),
        (("--ranks", "2", "--check", "forward,loss"), "run checks forward, loss without --ranks"),
        (("--ranks", "2", "--steps", "3"), "With --ranks take at least 4 steps, found 3"),
        (("--ranks", "2", "--size", "64x64", "--objects", "3"), "leave --objects out"),
        (("--ranks", "2", "--device", "cuda"), "Ranks are joined by gloo, which is for the CPU"),
        (("--ranks", "3"), "--ranks"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(parity, arguments, says):
    result = parity("run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *arguments)
    assert result.exit_code == 2 and says in one_line(result)


def test_capture_of_too_many_objects(parity, tmp_path):
    arguments = ("--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", "64x64", "--objects", "20000")
    result = parity("capture", tmp_path / "golden.npz", *arguments)
    assert result.exit_code == 2 and "Objects (20000,)" in one_line(result)


@pytest.mark.parametrize("command", [("check", "golden.npz"), ("demo",)], ids=str)
def test_force_without_a_folder_to_replace(parity, command):
    result = parity(*command, "--force")
    assert result.exit_code == 2 and "--force needs --out" in one_line(result)


def test_bounds_of_a_comparison_that_is_exact(parity, tmp_path):
    where = ("--family", "mmdet_ddq", "--variant", "tiny_4scale")
    result = parity("compare", tmp_path, tmp_path, *where, "--atol", "1")
    assert result.exit_code == 2 and "--atol goes with --tolerance fixed, not exact" in one_line(result)


def test_earlier_run_is_kept_without_force(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("{}")
    result = tiny("--out", tmp_path / "out", "-q")
    assert result.exit_code == 2 and "--force" in one_line(result)
    assert (tmp_path / "out" / "run.json").read_text() == "{}"


def test_foreign_folder_is_kept_even_with_force(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    result = tiny("--out", tmp_path / "out", "--force", "-q")
    assert result.exit_code == 2
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_compare_of_folders_that_are_no_traces(parity, tmp_path):
    result = parity("compare", tmp_path, tmp_path, "--family", "mmdet_ddq", "--variant", "tiny_4scale")
    assert result.exit_code == 2 and "is not a trace" in one_line(result)


def test_index_that_is_malformed(parity, tmp_path):
    (tmp_path / "index.json").write_text('{"format_version": 1}')
    result = parity("compare", tmp_path, tmp_path, "--family", "mmdet_ddq", "--variant", "tiny_4scale")
    assert result.exit_code == 2 and "malformed" in one_line(result)


def test_bug_of_the_tool_is_no_verdict(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    code = (
        "import sys; import parity.cli.trace_commands as c; from parity.cli.main import main\n"
        "c.compare = lambda **k: 1 / 0\n"
        "sys.argv = ['ddq-parity', 'compare', '.', '.']\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 70 and "ZeroDivisionError" in result.stderr


def test_legacy_repo_for_a_family_that_has_none(tiny, tmp_path):
    result = tiny("--legacy-repo", tmp_path, "-q")
    assert result.exit_code == 2 and "leave --legacy-repo out" in one_line(result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_device_that_is_not_there(tiny):
    result = tiny("--device", "cuda", "-q")
    assert result.exit_code == 2 and "not available" in one_line(result)


def test_bad_input_leaves_no_output_and_keeps_the_earlier_run(tiny, tmp_path):
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "run.json").write_text("{}")
    for out, force in ((tmp_path / "fresh", ()), (tmp_path / "earlier", ("--force",))):
        result = tiny("--checkpoint", tmp_path / "missing.pth", "--out", out, *force, "-q")
        assert result.exit_code == 2
    assert not (tmp_path / "fresh").exists()
    assert (tmp_path / "earlier" / "run.json").read_text() == "{}"


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory):
    """Keep the traces of one inference run under a relative path with a space."""
    folder = tmp_path_factory.mktemp("kept")
    arguments = "run --family mmdet_ddq --variant tiny_4scale --check forward --size 64x64 -q --out".split()
    done = subprocess.run(
        [sys.executable, "-m", "parity", *arguments, "my run"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "my run"


def compare_kept(parity, kept_run, *arguments, variant="tiny_4scale", family="mmdet_ddq"):
    return parity(
        "compare", kept_run / "legacy", kept_run / "new", "--family", family, "--variant", variant, "-q", *arguments
    )


def test_kept_traces_compare_again(parity, kept_run):
    result = compare_kept(parity, kept_run)
    assert result.exit_code == 0 and result.stdout.startswith("MATCH ")


@pytest.mark.parametrize("second", ["legacy", "new"])
def test_new_trace_in_the_place_of_the_legacy_one(parity, kept_run, second):
    where = ("--family", "mmdet_ddq", "--variant", "tiny_4scale")
    line = one_line(parity("compare", kept_run / "new", kept_run / second, *where))
    assert f"{kept_run / 'new'} does not have the legacy layout of mmdet_ddq tiny_4scale" in line
    assert "compare LEGACY NEW" in line


def test_traces_of_another_family_or_variant_are_refused(parity, kept_run):
    for other in (dict(family="ddq_detr"), dict(variant="r50_4scale")):
        result = compare_kept(parity, kept_run, **other)
        assert result.exit_code == 2 and "was recorded for mmdet_ddq tiny_4scale" in one_line(result)


def test_traces_tell_what_they_are_compared_as(parity, kept_run, tmp_path):
    result = parity("compare", kept_run / "legacy", kept_run / "new", "-q")
    assert result.exit_code == 0 and result.stdout.startswith("MATCH ")
    assert compare_kept(parity, kept_run).stdout == result.stdout
    from parity.cli import trace_commands as commands
    from parity.traces.trace import Trace

    one = Trace.load(kept_run / "legacy")
    other = replace(one, provenance={**one.provenance, "family": "ddq_detr"})
    with pytest.raises(commands.TraceError, match="was recorded for ddq_detr tiny_4scale, .* for mmdet_ddq tiny"):
        commands._recorded_for(one, other, None, None)
    assert str(commands._recorded_for(one, other, "mmdet_ddq", None)) == "mmdet_ddq tiny_4scale"
    with pytest.raises(commands.TraceError, match="was recorded for ddq_detr tiny_4scale, expected mmdet_ddq tiny"):
        commands._recorded_for(other, one, "mmdet_ddq", None)
    silent = replace(one, provenance={})
    with pytest.raises(commands.TraceError, match="does not say what it was recorded for; pass --family and --var"):
        commands._recorded_for(silent, silent, None, None)
    assert str(commands._recorded_for(silent, silent, "mmdet_ddq", "tiny_4scale")) == "mmdet_ddq tiny_4scale"


def test_trace_with_a_changed_byte_is_refused_with_verify(parity, kept_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(kept_run, copy)
    shard = copy / "new" / "trace-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    result = compare_kept(parity, copy, "--verify")
    assert result.exit_code == 2 and "is not what was recorded" in one_line(result)


def test_reader_that_goes_away_does_not_change_the_verdict(kept_run):
    command = [sys.executable, "-m", "parity", "compare", kept_run / "legacy", kept_run / "new"]
    command += ["--family", "mmdet_ddq", "--variant", "tiny_4scale"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait() == 0, process.stderr.read()


def test_termination_ends_the_side_and_removes_the_temporary_folder(tmp_path):
    repo = fake_repo(
        tmp_path / "repo",
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)",
    )
    command = [sys.executable, "-m", "parity", "run", "--family", "ddq_detr", "--variant", "tiny_4scale"]
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen([*command, "--legacy-repo", repo], env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []
    side = int((tmp_path / "pid").read_text())
    while _is_there(side):  # killed; who adopted it has to take note
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
