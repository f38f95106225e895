"""What holds for the distribution as a whole."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import converters
import ddq_port

ROOT = Path(__file__).parents[1]
COMMANDS = [
    ("converters", "-h"),
    ("converters", "convert", "-h"),
    ("converters", "inspect", "-h"),
    ("converters", "diff", "-h"),
    ("parity", "-h"),
    ("parity", "run", "-h"),
    ("parity", "demo", "-h"),
    ("parity", "capture", "-h"),
    ("parity", "check", "-h"),
    ("parity", "compare", "-h"),
    ("parity", "curves", "-h"),
    ("parity", "eval", "-h"),
]


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == converters.__version__ == ddq_port.__version__


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_documents_exit_codes_and_imports_nothing_heavy(command):
    package, *arguments = command
    code = (
        f"import sys, runpy; sys.argv = ['x', *{arguments!r}]\n"
        f"try: runpy.run_module({package!r}, run_name='__main__')\n"
        "finally: print('HEAVY', sorted({'torch', 'rich', 'mmdet', 'mmcv', 'mmengine', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "xit codes" in result.stdout and "HEAVY []" in result.stdout


def test_importing_the_package_is_light():
    code = "import sys, ddq_port, converters, parity, legacy_adapters; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_legacy_side_compiles_for_python_3_8():
    import ast

    for path in sorted((ROOT / "legacy_adapters").rglob("*.py")):
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 8))
