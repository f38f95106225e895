"""Which files a process executed, and that a legacy process holds nothing of the new side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from legacy_adapters.provenance.executed import SharedCodeError, check_apart
from legacy_adapters.standin import SHARED

ROOT = Path(__file__).parents[2]


def run_python(code: str, folder: Path) -> dict:
    """Run ``code`` in ``folder`` with this toolkit on its path; return the JSON it prints last."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_files_are_noted_however_they_are_executed(tmp_path):
    for name in ("imported", "forgotten", "run", "read", "only_told"):
        (tmp_path / f"{name}.py").write_text("value = 1\n")
    code = (
        "import json, runpy; from legacy_adapters.provenance import executed\n"
        "import imported\n"  # before anything is watched
        "executed.watch(); executed.watch()\n"
        "import forgotten; del sys.modules['forgotten']\n"
        "runpy.run_path('run.py')\n"
        "exec(compile(open('read.py').read(), '', 'exec'))\n"
        "with executed.unwatched(): open('only_told.py').read()\n"
        "import numpy, json\n"
        "print(json.dumps(dict(files=executed.files(), packages=executed.packages())))"
    )
    found = run_python(code, tmp_path)
    here = {Path(path).name for path in found["files"] if Path(path).parent == tmp_path.resolve()}
    assert here == {"imported.py", "forgotten.py", "run.py", "read.py"}
    assert str(ROOT / "legacy_adapters" / "provenance" / "executed.py") in found["files"]
    assert not any("site-packages" in path or "json" in path for path in found["files"])
    assert found["packages"]["numpy"]["version"] and "json" not in found["packages"]


def test_package_that_pip_put_into_a_folder_of_its_own_is_an_installed_one(tmp_path):
    for name in ("site", "loose"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_package.py").write_text("__version__ = '1.2'\n")
    (tmp_path / "site" / "some_package-1.2.dist-info").mkdir()
    code = (
        "import json; from legacy_adapters.provenance import executed; sys.path += ['site', 'loose']\n"
        "import site_package, loose_package\n"
        "print(json.dumps(dict(files=executed.files(), packages=executed.packages())))"
    )
    found = run_python(code, tmp_path)
    assert found["packages"]["site_package"]["version"] == "1.2" and "loose_package" not in found["packages"]
    assert {Path(path).name for path in found["files"] if tmp_path in Path(path).parents} == {"loose_package.py"}


@pytest.mark.parametrize(
    ("module", "foreign", "named"),
    [
        ("ported", "ported", "`ported`"),
        ("ported", "{here}/ported.py", "`ported`"),
        ("ported", "{here}", "`ported`"),
        ("ported", "port", None),
        ("ported", "{here}/port", None),
        ("package.inner", "package", "`package`"),
    ],
)
def test_module_of_the_new_side_is_refused(tmp_path, monkeypatch, module, foreign, named):
    (tmp_path / "ported.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "inner.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    __import__(module)
    try:
        if named is None:
            check_apart([foreign.format(here=tmp_path)])
        else:
            with pytest.raises(SharedCodeError, match=f"holds module {named} of the new side .*, expected none"):
                check_apart([foreign.format(here=tmp_path)])
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def test_files_that_serve_both_sides_are_allowed(tmp_path):
    port = str(Path(next(iter(SHARED))).parents[1])
    code = (
        "import json; from legacy_adapters import standin; from legacy_adapters.provenance import executed\n"
        f"[standin.load_shared(path) for path in standin.SHARED]; executed.check_apart(['ddq_port', {port!r}])\n"
        "print(json.dumps('ddq_port' in sys.modules))"
    )
    assert run_python(code, tmp_path) is False
