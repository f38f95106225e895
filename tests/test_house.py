"""The structure of the packages: no names of models in the engine, no circles, nothing grown too large, imports one way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.structure import LONGEST_FILE, MOST_MODULES, PACKAGES, Structure, structure

from .engine_words import engine_files, words_in

ROOT = Path(__file__).parents[1]
#: Code -> the word that must be seen in it.
PLANTED = {
    "scores = model.bbox_head(hidden)": "bbox_head",
    "class OldDecoder: pass\n_old_decoder = OldDecoder": "decoder",
    "def gap(encoder): pass": "encoder",
    "f(num_queries=9)": "num_queries",
    "from legacy_adapters.families import mmdet_ddq as other": "mmdet_ddq",
    "from legacy_adapters.families.ddq_detr.legacy import ADAPTER": "ddq_detr",
    "if name.startswith('bbox_head.cls_branches.7'): pass": "cls_branches",
    "title = f'{count} of DDQ-DETR'": "DDQ-DETR",
    "variant = 'tiny_4scale'": "tiny",
    "def first():\n    '''Return the variant r50_4scale.'''": "r50",
    "kinds = ['distinct', 'other']": "distinct",
    "def first():\n    global query_map": "query_map",
}
#: What only looks like it.
HARMLESS = (
    "run('ddq-parity', 'ddq-convert')", "import ddq_port.requirements", "key = 'ddq_manifest'", "x = y.to_dense()",
    "distinct_values = set()", "# the decoder\nx = 1",
)  # fmt: skip


def test_engine_names_no_model():
    words = [
        f"{path.relative_to(ROOT)}:{word}" for path in engine_files(ROOT) for word in words_in(path.read_text("utf-8"))
    ]
    assert words == []


@pytest.mark.parametrize(("code", "word"), PLANTED.items())
def test_a_planted_name_of_a_model_is_seen(code, word):
    assert word in [seen.partition(": ")[2] for seen in words_in(code)]


@pytest.mark.parametrize("code", HARMLESS)
def test_names_of_the_toolkit_are_none_of_a_model(code):
    assert list(words_in(code)) == []


@pytest.fixture(scope="module", params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Structure:
    """Return what a package is made of."""
    return structure(ROOT / request.param)


def test_no_modules_import_each_other_in_a_circle(package):
    assert package.circles == ()


def test_no_folder_has_too_many_modules(package):
    assert {folder: count for folder, count in package.folders.items() if count > MOST_MODULES} == {}


def test_no_file_is_too_long(package):
    assert {module: lines for module, lines in package.lines.items() if lines > LONGEST_FILE} == {}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of ``pyproject.toml`` for the packages in a folder."""
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_one_way():
    checked = lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_import_the_other_way_is_seen(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda _, names: [n for n in names if _is_other(n)])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    _append(tmp_path / "parity/traces/trace.py", "from legacy_adapters.families.ddq_detr import family")
    _append(tmp_path / "parity/comparing/pairing.py", "def late(): from ..verdict import blame")
    _append(tmp_path / "converters/rules/mapping.py", "from converters.reading import checkpoint")
    _append(tmp_path / "legacy_adapters/recording/taps.py", "import ddq_port.models")
    _append(tmp_path / "legacy_adapters/families/mmdet_ddq/family.py", "from ..ddq_detr import exclusions")
    checked = lint_imports(tmp_path)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    broken = ("The engine knows no family", "Rooms of parity", "Rooms of converters", "What runs a side", "No family")
    for contract in broken:
        lines = [line for line in checked.stdout.splitlines() if line.startswith(contract)]
        assert "BROKEN" in " ".join(lines), checked.stdout


def _append(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text('utf-8')}\n\n{line}\n", "utf-8")


def _is_other(name: str) -> bool:
    return name == "__pycache__" or Path(name).suffix not in ("", ".py")
