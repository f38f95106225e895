"""What holds for all four command lines: usage errors at once, in one form; missing packages in one line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from converters.cli.main import cli as convert
from ddq_port import requirements
from ddq_port.training.cli import cli as train
from ddq_port.training.eval_cli import cli as evaluate
from parity import capture
from parity.cli.main import cli as parity
from tests.models import GOLDEN

ROOT = Path(__file__).parents[1]
WHAT = ["--family", "mmdet_ddq", "--variant", "tiny_4scale"]
#: Module and object of each command line, and arguments that are refused, with a part of what is said.
USAGE = [
    ("converters.cli.main", ["convert", "a"], "Missing argument 'DST'"),
    ("converters.cli.main", ["convrt", "a"], "did you mean `convert`?"),
    ("ddq_port.training.cli", ["demo", "--steps", "0"], "--steps"),
    ("ddq_port.training.cli", ["run"], "Missing argument 'CONFIG'"),
    ("ddq_port.training.cli", ["demo", "--work-dir", "pyproject.toml/x"], "because " + str(ROOT / "pyproject.toml")),
    ("ddq_port.training.eval_cli", ["config"], "Missing argument 'CHECKPOINT'"),
    ("ddq_port.training.eval_cli", ["c", "w", "--show-dir", "pyproject.toml/x"], "is a file; choose another place"),
    ("ddq_port.training.eval_cli", ["c", "w", "--out", "pyproject.toml/x.json"], "is a file; choose another place"),
    ("parity.cli.main", ["run"], "Missing option '--family'"),
    ("parity.cli.main", ["run", *WHAT, "--force"], "--force needs --out"),
    ("parity.cli.main", ["run", *WHAT, "--ranks", "2", "--steps", "3"], "With --ranks take at least 4 steps"),
    ("parity.cli.main", ["run", *WHAT, "--check", "train", "--isolate"], "cannot be isolated"),
    ("parity.cli.main", ["run", *WHAT, "--amp", "bf16", "--dtype", "float64"], "use --amp with --dtype float32"),
    ("parity.cli.main", ["run", *WHAT, "--size", "64x64", "--objects", "1,2"], "2 numbers for 1 image; give one per image"),
    ("parity.cli.main", ["run", *WHAT, "--steps", "3"], "--steps needs check train"),
    ("parity.cli.main", ["run", *WHAT, "--rtol", "1"], "--rtol goes with --tolerance fixed"),
    ("parity.cli.main", ["run", *WHAT, "--checkpoint", "none.pth"], "none.pth does not exist"),
    ("parity.cli.main", ["run", "--family", "ddq_detr", *WHAT[2:]], "needs --legacy-repo"),
    ("parity.cli.main", ["check", "none.npz"], "none.npz does not exist"),
    ("parity.cli.main", ["compare", "none", "none"], "none does not exist"),
    ("parity.cli.main", ["audit", "none"], "none does not exist"),
    ("parity.cli.main", ["bisect", "none"], "none does not exist"),
    ("parity.cli.main", ["eval", "--ann", "none.json", "--images", ".", *WHAT], "none.json does not exist"),
    ("parity.cli.main", ["curves", "none", "none"], "none does not exist"),
]


def test_usage_errors_are_one_line_and_load_no_torch():
    code = (
        "import importlib, json, sys\n"
        "from click.testing import CliRunner\n"
        "for module, arguments in json.load(sys.stdin):\n"
        "    result = CliRunner().invoke(importlib.import_module(module).cli, arguments)\n"
        "    heavy = sorted({'torch', 'mmdet', 'mmcv', 'mmengine'} & set(sys.modules))\n"
        "    print(json.dumps([result.exit_code, result.output, heavy]))\n"
    )
    modules = sorted({module for module, _, _ in USAGE})
    asked = [(module, arguments) for module, arguments, _ in USAGE] + [(module, ["--help"]) for module in modules]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=ROOT
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for (module, arguments, says), (exit_code, output, heavy) in zip(USAGE, results):
        told = f"{module} {arguments}: {output}"
        assert exit_code == 2 and heavy == [], told
        assert output.startswith("error: ") and output.count("\n") == 1 and says in output, told
    for exit_code, output, heavy in results[len(USAGE) :]:
        assert exit_code == 0 and heavy == [] and output.startswith("Usage: ")


NEEDY = [
    (train, ["ddq-detr-4scale_tiny_shapes"]),
    (train, ["demo"]),
    (evaluate, ["ddq-detr-4scale_tiny_shapes", "x.pth"]),
    (parity, ["demo"]),
    (parity, ["run", *WHAT]),
    (parity, ["check", str(GOLDEN)]),
    (parity, ["capture", "new.npz", *WHAT]),
    (parity, ["eval", "--ann", "a.json", "--images", ".", *WHAT]),
]


@pytest.mark.parametrize(("command", "arguments"), NEEDY, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("missing", ["mmcv", "mmdet", "mmengine"])
def test_an_install_without_mmcv_says_what_to_install(command, arguments, missing, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert result.output.startswith(
        f"error: {missing} is not installed; install it with `pip install 'ddq-port[lite]'`"
    )
    assert "`pip install 'ddq-port[mmcv]'`" in result.output


@pytest.mark.parametrize(
    ("package", "version", "file", "accepted"),
    [
        ("mmcv", "2.2.0", "version.py", False),
        ("mmcv", "1.7.2", "version.py", False),
        ("mmcv", "2.2.0", "__init__.py", False),
        ("mmcv", "2.0.0rc4", "version.py", True),
        ("mmcv", "2.1.0", "version.py", True),
        ("mmcv", None, "version.py", True),
        ("mmengine", "0.6.0", "version.py", False),
        ("mmdet", "2.28.2", "version.py", False),
    ],
)
def test_versions_that_do_not_fit_are_refused(tmp_path, monkeypatch, package, version, file, accepted):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    if version:
        (tmp_path / package / file).write_text(f"# Copyright\n__version__ = '{version}'\n")
    find = importlib.util.find_spec
    spec = importlib.util.spec_from_file_location(package, tmp_path / package / "__init__.py")
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: spec if name == package else find(name))
    if accepted:
        requirements.check()
        return
    with pytest.raises(
        requirements.RequirementError, match=f"^{package} {version} is installed; ddq-port needs"
    ) as error:
        requirements.check()
    named = "mmcv mmcv-lite" if package == "mmcv" else package
    assert f"`pip uninstall {named}`, then `pip install 'ddq-port[lite]'`" in str(error.value)


def test_what_needs_no_mmcv_works_without_it(tmp_path):
    """Nothing of mm* can be imported; what only reads files does not miss it, what does says so."""
    code = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('mmcv', 'mmdet', 'mmengine'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import ddq_port, parity.cli.commands, parity.cli.curves_command\n"
        "import ddq_port.models\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.splitlines()[-1].startswith("ddq_port.requirements.RequirementError: mmcv is not installed;")


def test_comparing_traces_loads_nothing_that_runs_a_side_or_converts_and_looks_for_no_garbage_in_torch(tmp_path):
    model = torch.nn.Linear(3, 2)
    with capture(model, tmp_path / "t"):
        model(torch.ones(1, 3))
    code = (
        "import gc, sys\n"
        "seen = []\n"
        "gc.callbacks.append(lambda phase, info: phase == 'start' and seen.append(gc.get_count()[0]))\n"
        "from parity.cli.main import main\n"
        "sys.argv = ['ddq-parity', 'compare', 't', 't', '-q']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'parity.sides.sides', 'parity.runs.run', 'converters.planning', 'legacy_adapters.recording.recorder'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)), len(seen) < 200 and max(seen) < 100_000, gc.get_freeze_count() > 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "HEAVY [] True True", done.stdout + done.stderr


@pytest.mark.parametrize("command", [train, evaluate, parity, convert], ids=["train", "eval", "parity", "convert"])
@pytest.mark.parametrize(
    ("error", "is_bug"),
    [
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), False),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), False),
        (ImportError("cannot import name 'x' from 'parity.runs.run'", name="parity.runs.run"), True),
    ],
    ids=["system library", "module of a config", "our own"],
)
def test_imports_that_fail_are_one_line_unless_they_are_a_bug(command, error, is_bug, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(command, "invoke", fail)
    result = CliRunner().invoke(command, ["x", "y"])
    if is_bug:
        assert result.exception is error
    else:
        assert result.exit_code == 2 and result.output.startswith(
            f"error: Cannot import: {error}; is it installed here?"
        )
