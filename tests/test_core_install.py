"""What an install without mmdet and its company can do, and what it says of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import parity
from converters.rules.ports import port
from legacy_adapters.ground.names import LEGACY
from parity.cli.main import cli

ROOT = Path(__file__).parents[1]
HIDING = Path(__file__).with_name("core_install")
GOLDEN = ROOT / "legacy_adapters/families/ddq_detr/goldens/tiny_4scale.npz"
FUSED = ["run", "--family", "examples/fused_attention", "--check", "forward", "--threads", "1"]
DINO = "examples/dino_regrouped"
WHAT = ["--family", "mmdet_ddq", "--variant", "tiny_4scale"]
CONFIG = "ddq-detr-4scale_tiny_shapes"
#: Runs commands, each [module, arguments], in one process, and prints what each wrote and its exit code.
RUN_ALL = """
import contextlib, importlib, io, json, sys
for module, arguments in json.load(sys.stdin):
    command = importlib.import_module(module).cli
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command.main(arguments, prog_name="x")
        except SystemExit as end:
            code = end.code
    print("RESULT", json.dumps([code, out.getvalue(), err.getvalue()]))
print("LOADED", sorted({"mmdet", "mmengine", "mmcv", "PIL", "matplotlib", "pycocotools"} & set(sys.modules)))
"""
CONVERT, PARITY, TRAIN, EVAL = "converters.cli.main", "parity.cli.main", "ddq_port.training.cli", "ddq_port.training.eval_cli"


def core_python(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in the project's root as if mmdet and its company were not installed."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HIDING), str(ROOT)]), OMP_NUM_THREADS="1")
    return subprocess.run(
        [sys.executable, *arguments], input=given, capture_output=True, text=True, cwd=ROOT, env=environment
    )


def results_of(commands: list[tuple[str, list[str]]]) -> list[tuple[int, str, str]]:
    """Run commands in a core install and return exit code, stdout and stderr of each."""
    done = core_python("-c", RUN_ALL, given=json.dumps(commands))
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "LOADED []"
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def test_the_packages_are_hidden():
    done = core_python("-c", "import mmengine")
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'mmengine'\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a legacy checkpoint and two scripts' traces of one module."""
    folder = tmp_path_factory.mktemp("core")
    tensors = port("ddq_detr", "tiny_4scale").layout(LEGACY).tensors
    state = {name: torch.zeros(spec.shape, dtype=getattr(torch, str(spec.dtype))) for name, spec in tensors.items()}
    torch.save(dict(state_dict=state), folder / "old.pth")
    for name in ("old", "new"):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        with parity.capture(module, folder / name):
            module(torch.randn(4, 3))
    return folder


#: What needs none of the packages: commands, and how what they print begins.
WORKING = [
    (CONVERT, ["convert", "FOLDER/old.pth", "FOLDER/new.safetensors", "--variant", "tiny_4scale"], "CONVERTED"),
    (CONVERT, ["verify", "FOLDER/new.safetensors", "--source", "FOLDER/old.pth"], "VERIFIED"),
    (CONVERT, ["inspect", "FOLDER/new.safetensors"], ""),
    (PARITY, ["compare", "FOLDER/old", "FOLDER/new", "--html", "FOLDER/page.html"], "MATCH"),
    (TRAIN, ["--help"], "Usage"),
    (EVAL, ["--help"], "Usage"),
    *((PARITY, [name, "--help"], "Usage") for name in sorted(cli.commands)),
]
#: What needs them and says so before it does anything.
NEEDY = [
    (TRAIN, [CONFIG]),
    (TRAIN, ["demo"]),
    (TRAIN, ["shapes", "drawn"]),
    (TRAIN, ["check-data", "a.json"]),
    (EVAL, [CONFIG, "x.pth"]),
    (PARITY, ["demo"]),
    (PARITY, ["run", *WHAT]),
    (PARITY, ["run", "--family", DINO]),
    (PARITY, ["check", str(GOLDEN)]),
    (PARITY, ["capture", "new.npz", *WHAT]),
    (PARITY, ["eval", "--ann", str(GOLDEN), "--images", ".", *WHAT]),
    (PARITY, ["curves", str(GOLDEN), str(GOLDEN), "--out", "x"]),
    (PARITY, ["preprocess", *WHAT, "--image", "FOLDER/old.pth"]),
    (PARITY, ["run", *WHAT, "--image", "FOLDER/old.pth"]),
    (PARITY, ["rehearse", "--family", "ddq_detr", "--legacy-repo", ".", "--out", "rehearsed"]),
    (CONVERT, ["convert", "FOLDER/old.pth", "FOLDER/x.pth", "--family", "mmdet2", "--new-config", "b.py"]),
]


def test_the_core_works_and_says_in_a_line_what_the_rest_needs(folder):
    commands = [
        (module, [word.replace("FOLDER", str(folder)) for word in words])
        for module, words in [*((module, words) for module, words, _ in WORKING), *NEEDY]
    ]
    results = results_of(commands)
    for (*_, says), (code, out, err) in zip(WORKING, results):
        assert code == 0 and (out.splitlines() or [""])[-1 if says.isupper() else 0].startswith(says), (out, err)
    for command, (code, out, err) in zip(commands[len(WORKING) :], results[len(WORKING) :]):
        assert (code, out) == (2, "") and err.count("\n") == 1, (command, out, err)
        assert "is not installed; install it with `pip install 'ddq-port[lite]'`" in err, (command, err)


def test_a_family_without_mmdet_runs_in_the_core(tmp_path):
    (code, out, err), = results_of([(PARITY, [*FUSED, "--tolerance", "fixed"])])  # fmt: skip
    assert code == 0 and out.splitlines()[-1].startswith("MATCH"), err


def test_a_family_that_does_not_say_what_it_needs_fails_in_a_line(tmp_path):
    for file in (ROOT / DINO).glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text().replace(", needs=MMDET", ""))
    (code, _, err), = results_of([(PARITY, ["run", "--family", str(tmp_path)])])  # fmt: skip
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    assert "needs mmdet, which is not installed; install it with `pip install 'ddq-port[lite]'`" in err
