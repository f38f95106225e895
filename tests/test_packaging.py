"""What holds for the distribution as a whole."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
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


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory):
    """Return a folder with a copy of every tracked file, and the names of these."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a checkout with git, to know what is tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    folder = tmp_path_factory.mktemp("checkout")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder, set(names)


def built(folder, kind):
    """Build a distribution as pip does, without the network, and return its path."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.splitlines()[-1]


def test_the_source_distribution_holds_every_tracked_file_and_nothing_else(clean_copy):
    folder, tracked = clean_copy
    with tarfile.open(built(folder, "sdist")) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert sorted(tracked - held) == []
    assert sorted(name for name in held - tracked if not name.startswith("ddq_port.egg-info/")) == ["PKG-INFO", "setup.cfg"]


def test_the_wheel_holds_the_packages_with_their_data_and_is_typed(clean_copy):
    folder, tracked = clean_copy
    with zipfile.ZipFile(built(folder, "wheel")) as archive:
        held = set(archive.namelist())
    packages = ("converters/", "ddq_port/", "legacy_adapters/", "parity/")
    assert sorted(name for name in tracked - held if name.startswith(packages) and not name.endswith("README.md")) == []
    assert {f"{package}py.typed" for package in packages} <= held
    assert [name for name in held if not name.startswith((*packages, "ddq_port-"))] == []


def test_legacy_side_compiles_for_python_3_8():
    import ast

    for path in sorted((ROOT / "legacy_adapters").rglob("*.py")):
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 8))


def test_legacy_side_asks_for_nothing_newer_than_python_3_8():
    vermin = Path(sys.executable).with_name("vermin")
    if not vermin.is_file():
        pytest.skip("vermin is not installed")
    shared = [ROOT / "ddq_port" / "ops" / name for name in ("continuous.py", "roi_align.py")]
    # `long` is a method of tensors here, not Python 2's type
    command = [vermin, "-t=3.8-", "--no-tips", "--violations", "--exclude", "long", ROOT / "legacy_adapters", *shared]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stdout


def test_the_demo_is_that_of_the_readme():
    from parity.cli.main import demo_file

    assert demo_file().parts[-3:] == ("ddq_detr", "goldens", "tiny_4scale.npz")
