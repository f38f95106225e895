"""Whether legacy code is as it was published: a checkout by its commit, an installed package by its record."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from legacy_adapters import registry
from legacy_adapters.family import RepoError
from legacy_adapters.provenance import originals


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package ``toy`` of two files, installed with a record; returns its folder."""
    package, info = tmp_path / "toy", tmp_path / "toy-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("version = 1\n")
    (package / "model.py").write_text("width = 2\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    lines = []
    for file in sorted(package.iterdir()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
        lines.append(f"toy/{file.name},sha256={digest},{file.stat().st_size}\n")
    (info / "RECORD").write_text("".join(lines) + "toy-1.0.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return package


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda package: None, {}),
        (lambda package: (package / "model.py").write_text("width = 3\n"), {"toy": ["toy/model.py"]}),
        (lambda package: (package / "model.py").unlink(), {"toy": ["toy/model.py"]}),
        (lambda package: (package / "model.pyc").write_text(""), {}),
        (lambda package: (package / "more.py").write_text("depth = 3\n"), {"toy": ["toy/more.py"]}),
        (lambda package: (package.parent / "toy-1.0.dist-info" / "RECORD").write_text(""), {"toy": []}),
    ],
    ids=["as published", "edited", "gone", "no source", "added", "nothing noted"],
)
def test_files_of_an_installed_package_are_compared_with_its_record(installed, edit, expected):
    edit(installed)
    assert originals.altered(["toy", "never_installed"]) == expected
    env = {"PYTHONPATH": str(installed.parent)}
    asked = subprocess.run([sys.executable, originals.__file__, "toy"], capture_output=True, text=True, env=env)
    assert json.loads(asked.stdout) == expected


@pytest.mark.parametrize(("width", "expected"), [(2, {}), (3, {"toy": ["toy/model.py"]})])
def test_what_is_imported_counts_and_not_what_is_installed(installed, tmp_path, monkeypatch, width, expected):
    copy = tmp_path / "elsewhere" / "toy"
    copy.mkdir(parents=True)
    (copy / "__init__.py").write_text("version = 1\n")
    (copy / "model.py").write_text(f"width = {width}\n")
    monkeypatch.syspath_prepend(str(copy.parent))
    assert originals.altered(["toy"]) == expected


def test_mmdet_as_installed_here_is_as_published():
    assert originals.altered(registry.get("mmdet_ddq").legacy.packages) == {}


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({}, ""),
        ({"commit": "80c7d5f"}, ""),
        ({"altered": {}}, ""),
        ({"commit": originals.UNKNOWN}, "legacy code of no known commit"),
        ({"altered": {"mmdet": ["a", "b"], "mmcv": ["c"]}},
         "legacy code other than published: 1 file of mmcv, 2 files of mmdet"),
        ({"altered": {"mmdet": []}}, "legacy code other than published: mmdet, installed without a record"),
    ],
)  # fmt: skip
def test_remark(provenance, said):
    assert originals.remark(provenance) == said


def test_family_refuses_what_is_of_no_known_commit(installed, tmp_path):
    checkout = replace(registry.get("ddq_detr").legacy.checkout, code=("toy",), commits={})
    digest = originals.fingerprint(str(tmp_path), ("toy",))
    with pytest.raises(RepoError, match=f"is of no known commit \\(its code is {digest[:12]}\\.\\.\\.\\); expected "):
        checkout.check_known(tmp_path)
    replace(checkout, commits={digest: "abc"}).check_known(tmp_path)

    family = registry.get("mmdet_ddq")
    package = replace(family, legacy=replace(family.legacy, packages=("toy",)))
    package.check_known(None, None)
    (installed / "model.py").write_text("width = 3\n")
    with pytest.raises(RepoError, match="Installed toy: 1 file is not as it was published, the first is toy/mod"):
        package.check_known(None, None)
    (installed.parent / "toy-1.0.dist-info" / "RECORD").write_text("")
    with pytest.raises(RepoError, match="Of toy no record tells how its files were published; install it from a wheel"):
        package.check_known(None, None)


def test_fingerprint_is_of_the_code_and_not_of_its_place(installed, tmp_path):
    before = originals.fingerprint(str(tmp_path), ("toy",))
    (installed / "notes.txt").write_text("no code")
    other = tmp_path / "other"
    other.mkdir()
    installed.rename(other / "toy")
    assert originals.fingerprint(str(other), ("toy",)) == before
    (Path(other) / "toy" / "model.py").write_text("width = 4\n")
    assert originals.fingerprint(str(other), ("toy",)) != before
