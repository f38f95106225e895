"""What an install without mmdet and its company can do, and what it says of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from converters.rules.ports import port
from legacy_adapters.ground.names import LEGACY

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
    done = core_python("-c", "import torch, mmengine")
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'mmengine'\n")


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    """Return a folder with a legacy checkpoint, a family that does not say what it needs, and room for a run."""
    folder = tmp_path_factory.mktemp("core")
    tensors = port("ddq_detr", "tiny_4scale").layout(LEGACY).tensors
    state = {name: torch.zeros(spec.shape, dtype=getattr(torch, str(spec.dtype))) for name, spec in tensors.items()}
    torch.save(dict(state_dict=state), folder / "old.pth")
    (folder / "silent").mkdir()
    for file in (ROOT / DINO).glob("*.py"):
        (folder / "silent" / file.name).write_text(file.read_text().replace(", needs=MMDET", ""))
    return folder


def test_the_core_converts_runs_and_compares(ways):
    run = ways / "run"
    results = results_of(
        [
            (CONVERT, ["convert", str(ways / "old.pth"), str(ways / "new.safetensors"), "--variant", "tiny_4scale"]),
            (CONVERT, ["verify", str(ways / "new.safetensors"), "--source", str(ways / "old.pth")]),
            (PARITY, [*FUSED, "--out", str(run), "--tolerance", "fixed", "--html", str(ways / "run.html")]),
            (PARITY, ["compare", str(run / "legacy"), str(run / "new"), "--tolerance", "fixed"]),
            (PARITY, ["curves", "--help"]),
        ]
    )
    assert [code for code, _, _ in results] == [0] * 5, results
    assert [out.splitlines()[-1].split()[0] for _, out, _ in results[:4]] == ["CONVERTED", "VERIFIED", "MATCH", "MATCH"]


NEEDY = [
    (TRAIN, [CONFIG]),
    (TRAIN, ["demo"]),
    (TRAIN, ["shapes", "drawn"]),
    (TRAIN, ["check-data", "a.json"]),
    (EVAL, [CONFIG, "x.pth"]),
    (PARITY, ["demo"]),
    (PARITY, ["run", *WHAT]),
    (PARITY, ["run", "--family", DINO]),
    (PARITY, ["run", "--family", "SILENT"]),
    (PARITY, ["check", str(GOLDEN)]),
    (PARITY, ["capture", "new.npz", *WHAT]),
    (PARITY, ["eval", "--ann", str(GOLDEN), "--images", ".", *WHAT]),
    (PARITY, ["rehearse", "--family", "ddq_detr", "--legacy-repo", ".", "--out", "rehearsed"]),
    (CONVERT, ["convert", "OLD", "new.pth", "--family", DINO]),
]


def test_what_needs_mmdet_says_in_a_line_what_to_install(ways):
    names = {"SILENT": str(ways / "silent"), "OLD": str(ways / "old.pth")}
    asked = [(module, [names.get(word, word) for word in arguments]) for module, arguments in NEEDY]
    for (module, arguments), (code, out, err) in zip(asked, results_of(asked), strict=True):
        told = f"{module} {arguments}: {code} {out} {err}"
        *steps, last = err.splitlines()
        assert code in (1, 2) and out == "" and last.startswith("error: "), told
        assert "is not installed; install it with `pip install 'ddq-port[lite]'`" in last, told
        assert all(step.endswith(" ...") for step in steps), told
