"""Layouts are stored beside a family, taken from its models."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from converters import layouts
from converters.rules import built
from converters.rules.ports import port
from legacy_adapters.launch import RefusedError, SideError
from parity.cli.new_family import write
from tests.models import layout_of


def test_stored_layouts_are_those_of_the_models_and_are_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "my_port"
    write(folder)
    assert layouts.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"wrote {folder}/layouts/small.json\n"
    file = folder / "family.py"
    file.write_text(file.read_text().replace("    rules=RULES,\n", '    rules=RULES,\n    layouts=Path("layouts"),\n'))
    moved = folder.rename(tmp_path / "other_place")  # where it is read for the first time as it is now
    model = port(str(moved))
    assert model.has_layouts and model.layout("new").tensors["stem.conv.weight"].shape == (8, 3, 3, 3)
    assert "bn1.running_mean" in model.layout("legacy").buffers


def test_the_layout_of_a_built_in_model_is_the_stored_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr(layouts, "write_whole", lambda path, text: written.update({path: text}))
    (file,) = layouts.store("ddq_detr", ["tiny_r18"])
    assert file.read_text() == written[file] == layout_of("tiny_r18").to_json()


@pytest.mark.parametrize(
    "error", [SideError("new", "crashed in build: no weights", ""), RefusedError("It has no method `build`.")]
)
def test_a_model_that_cannot_be_built_is_one_line(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*where: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(built, "describe_side", refuse)
    write(tmp_path / "my_port")
    assert layouts.main([str(tmp_path / "my_port")]) == 2
    assert capsys.readouterr().err == (
        f"error: The layout of my_port small is taken from its model, which cannot be built: {error}\n"
    )


def test_the_module_runs_as_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["layouts"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(layouts.__file__, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "usage: python -m converters.layouts FAMILY [VARIANT ...]\n"


@pytest.mark.parametrize("arguments", [[], ["yolo"], ["ddq_detr", "huge"]], ids=["nothing", "family", "variant"])
def test_what_is_not_there_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert layouts.main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
