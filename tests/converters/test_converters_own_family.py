"""Checkpoints of a family in a folder, with several variants and with keys that its rules drop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from converters.cli.main import cli
from tests.models import described

FAMILY = """
from pathlib import Path

from converters.rules.mapping import Drop, Keep, Rename
from legacy_adapters.family import Family, Side, Variant

FAMILY = Family(
    name="mine",
    variants=(Variant("small"), Variant("large")),
    legacy=Side("old", Path("legacy.py")),
    new=Side("new", Path("new.py")),
    rules=(Rename("old.*", "layer.*"), Keep("head.*"), Drop("aux.*", "not ported")),
    layouts=Path("layouts"),
)
"""
WIDTHS = {"small": 2, "large": 4}


def state_dict(width: int) -> dict[str, Tensor]:
    """Return weights of the legacy layout, with a module that is dropped."""
    modules = {"old": nn.Linear(3, width), "head": nn.Linear(width, 2), "aux": nn.Linear(width, 1)}
    return nn.ModuleDict(modules).state_dict()


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Write the family with its layouts, so that no model is built."""
    folder = tmp_path / "mine"
    (folder / "layouts").mkdir(parents=True)
    (folder / "family.py").write_text(FAMILY)
    for name, width in WIDTHS.items():
        model = nn.ModuleDict({"layer": nn.Linear(3, width), "head": nn.Linear(width, 2)})
        (folder / "layouts" / f"{name}.json").write_text(described(model, name).to_json())
    for side in ("legacy", "new"):
        (folder / f"{side}.py").touch()
    return folder


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write a checkpoint."""
    torch.save({"state_dict": tensors}, path)
    return path


def convert(*arguments: object) -> Result:
    """Run ``ddq-convert``."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("to", ["new", "legacy"])
def test_a_file_and_its_conversion_are_equal_though_rules_drop_keys(family: Path, tmp_path: Path, to: str) -> None:
    old, made = saved(tmp_path / "old.pth", state_dict(4)), tmp_path / "made.pth"
    assert convert("convert", old, made, "--to", to, "--family", family).exit_code == 0
    for name, files in (("A", (old, made)), ("B", (made, old))):
        result = convert("diff", *files, "--family", family)
        assert result.exit_code == 0 and result.stdout.endswith("EQUAL 4 tensors\n"), result.output
        assert f"left out      2 in {name} that the rules drop, `aux.bias`, `aux.weight`\n" in result.stdout


def test_dropped_keys_that_both_files_have_are_compared(family: Path, tmp_path: Path) -> None:
    one = state_dict(4)
    two = {**one, "aux.bias": one["aux.bias"] + 1}
    files = (saved(tmp_path / f"{name}.pth", tensors) for name, tensors in (("one", one), ("two", two)))
    result = convert("diff", *files, "--family", family)
    assert result.exit_code == 1 and result.stdout.endswith("DIFFERENT 1 of 6 tensors\n"), result.output


@pytest.mark.parametrize(
    ("change", "says"),
    [({"more.weight": torch.ones(1)}, "Key `more.weight` of the source is matched by no rule"),
     ({"head.bias": torch.ones(5)}, "have another shape than those of `large`")],
    ids=["key", "shape"],
)  # fmt: skip
def test_a_source_that_does_not_fit_is_told_which_variant_it_was_taken_for(
    family: Path, tmp_path: Path, change: dict[str, Tensor], says: str
) -> None:
    source, taken = saved(tmp_path / "old.pth", {**state_dict(4), **change}), "the source was taken for variant `large`"
    result = convert("convert", source, tmp_path / "new.pth", "--family", family)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and says in line and f"{taken}, legacy side; if that is wrong, pass --variant" in line
    result = convert("convert", source, tmp_path / "new.pth", "--family", family, "--variant", "large")
    assert result.exit_code == 1 and says in result.stderr and taken not in result.stderr


def test_a_source_of_no_variant_is_told_the_nearest_one(family: Path, tmp_path: Path) -> None:
    source = saved(tmp_path / "old.pth", state_dict(7))
    result = convert("convert", source, tmp_path / "new.pth", "--family", family)
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and "fit no known layout of mine: the nearest, mine small on its legacy side" in line


def test_the_nearest_variant_is_told_without_stored_layouts_too(family: Path, tmp_path: Path) -> None:
    text = (family / "family.py").read_text()
    (family / "family.py").write_text(text.replace('    layouts=Path("layouts"),\n', ""))
    adapter = (
        "from torch import nn\nfrom legacy_adapters.bases.module import ModuleAdapter\n\n"
        "class New(ModuleAdapter):\n    def build(self, options, device):\n"
        "        return nn.ModuleDict({'layer': nn.Linear(3, 2), 'head': nn.Linear(2, 2)})\n\nADAPTER = New()\n"
    )
    (family / "new.py").write_text(adapter)
    source = saved(tmp_path / "old.pth", state_dict(7))
    result = convert("convert", source, tmp_path / "new.pth", "--family", family)
    assert result.exit_code == 1 and "the nearest, mine small on its legacy side, has 25%" in result.stderr, result.output
