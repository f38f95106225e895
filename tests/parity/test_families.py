"""A family is one folder, wherever it lies: all verbs work with it, and nothing else is touched for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from converters.cli.main import cli as convert_cli
from converters.rules import built, ports
from legacy_adapters import registry
from parity.cli.main import cli
from parity.sides.prepare import seeded_weights

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
#: The packages, whose files a new family leaves as they are.
PACKAGES = ("parity", "converters", "legacy_adapters", "ddq_port")
#: An adapter of the port of DDQ-DETR whose decoder normalises otherwise.
WRONG_NORM = """
from parity.adapters.ddq_port import *
import parity.adapters.ddq_port as port


def build(options, device):
    model = port.build(options, device)
    model.decoder.norm.eps = 1e-3
    return model
"""
EVERYTHING = ("--check", "forward,loss,grad,init,train", "--steps", 2)


def parity(*arguments: object) -> Result:
    """Run ``ddq-parity``."""
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, [str(argument) for argument in arguments])


def convert(*arguments: object) -> Result:
    """Run ``ddq-convert``."""
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(convert_cli, [str(a) for a in arguments])


def assert_matches(result: Result) -> None:
    """Expect a match."""
    assert result.exit_code == 0 and "MATCH" in result.stdout, result.output


def assert_named(result: Result, place: str) -> None:
    """Expect a mismatch that is blamed on a place."""
    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout)["first_divergence"]["where"] == place


def forget_families() -> None:
    """Let families be looked for anew; those that were read stay the same objects, which other tests hold."""
    for cached in (registry.own, ports.port):
        cached.cache_clear()


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Move the folder of a built-in family out of the package; return where it is."""
    folder = tmp_path_factory.mktemp("package") / "families"
    shutil.copytree(registry.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = shutil.move(folder / "mmdet_ddq", tmp_path_factory.mktemp("elsewhere") / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "FOLDER", folder)
        forget_families()
        assert "mmdet_ddq" not in registry.names()
        yield Path(elsewhere)
    forget_families()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a new family by the command; return its folder."""
    folder = tmp_path_factory.mktemp("new") / "mine"
    before = state_of_packages()
    result = parity("new-family", folder)
    assert result.exit_code == 0 and state_of_packages() == before, result.output
    return folder


def state_of_packages() -> dict[Path, int]:
    """Return when each file of the packages was written."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {path: path.stat().st_mtime_ns for path in files if path.is_file() and "__pycache__" not in path.parts}


@dataclass(frozen=True)
class Kept:
    """A run of a family, which matched, with all of its traces.

    Attributes:
        family: folder of the family.
        model: arguments that choose the model.
        size: arguments that choose the images, for a family that is given such.
        out: folder of the run.
        wrong: arguments with which the port has another constant in a normalisation.
        place: of that.
        decides: the model decides something.
    """

    family: Path
    model: tuple[object, ...]
    size: tuple[object, ...]
    out: Path
    wrong: tuple[object, ...]
    place: str
    decides: bool

    def weights(self, file: Path) -> Path:
        """Write a checkpoint of the legacy layout."""
        port = built.with_new_layout(ports.port(str(self.family), self.model[3] if len(self.model) > 2 else None))
        torch.save({"state_dict": seeded_weights(port.layout("legacy"), 0, port.family.seeding)}, file)
        return file


def run_once(kept: Kept) -> Kept:
    """Compare everything that can be, and keep it."""
    asked = ("--isolate", "--threads", 1, "--out", kept.out)
    assert_matches(parity("run", *kept.model, *kept.size, *EVERYTHING, *asked))
    return kept


@pytest.fixture(scope="module")
def moved_run(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Run the family that was moved out of the package."""
    out = tmp_path_factory.mktemp("moved")
    wrong = out / "wrong.py"
    wrong.write_text(WRONG_NORM)
    model = ("--family", moved, "--variant", "tiny_4scale")
    size = ("--size", "64x64")
    return run_once(Kept(moved, model, size, out / "run", ("--new-adapter", wrong), "decoder.norm", True))


@pytest.fixture(scope="module")
def written_run(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Run the family that was written."""
    out = tmp_path_factory.mktemp("written")
    wrong = out / "wrong.py"
    right = (written / "new.py").read_text()
    wrong.write_text(right.replace("nn.BatchNorm2d(channels)", "nn.BatchNorm2d(channels, eps=1e-3)"))
    assert wrong.read_text() != right
    return run_once(Kept(written, ("--family", written), (), out / "run", ("--new-adapter", wrong), "stem.norm", False))


@pytest.fixture(params=["moved_run", "written_run"])
def kept(request: pytest.FixtureRequest) -> Kept:
    """Return the run of a family that is not where the built-in ones are."""
    return request.getfixturevalue(request.param)


def test_traces_are_compared_and_audited(kept):
    assert_matches(parity("compare", kept.out / "legacy", kept.out / "new"))
    audited = parity("audit", kept.out / "new")
    assert audited.exit_code == (0 if kept.decides else 3), audited.output


def test_port_is_checked_with_a_recording(kept, tmp_path):
    captured = parity("capture", tmp_path / "file.npz", *kept.model, *kept.size, "--check", "forward", "--threads", 1)
    assert captured.exit_code == 0, captured.output
    assert_matches(parity("check", tmp_path / "file.npz", "--family", kept.family, "--threads", 1))


def test_planted_error_is_named_and_bisected(kept, tmp_path):
    where = ("--check", "forward", "--threads", 1, "--out", tmp_path / "run", "--json")
    result = parity("run", *kept.model, *kept.size, *kept.wrong, *where)
    assert_named(result, kept.place)
    bisected = parity("bisect", tmp_path / "run", "--json")
    assert bisected.exit_code == 1, bisected.output
    said = json.loads(bisected.stdout)
    assert [place["where"] for place in said["isolated"]] == [kept.place] and Path(said["script"]).is_file()


def test_weights_are_carried_both_ways(kept, tmp_path):
    legacy, new, back = kept.weights(tmp_path / "legacy.pth"), tmp_path / "new.pth", tmp_path / "back.pth"
    done = convert("convert", legacy, new, *kept.model)
    assert done.exit_code == 0, done.output
    checked = convert("verify", new, "--source", legacy)
    assert checked.exit_code == 0, checked.output
    again = convert("convert", new, back, "--to", "legacy", *kept.model)
    assert again.exit_code == 0, again.output
    seen = convert("inspect", new, *kept.model, "--json")
    assert seen.exit_code == 0, seen.output
    detection = json.loads(seen.stdout)["detection"]
    assert detection["side"] == "new" and detection["family"] == ports.port(str(kept.family), None).family.name
    for one, two in ((legacy, back), (legacy, new)):
        assert convert("diff", one, two, *kept.model).exit_code == 0


def test_port_with_renamed_and_regrouped_modules_of_dino_matches(tmp_path):
    model = ("--size", "64x64", "--threads", 1)
    assert_matches(parity("run", "--family", EXAMPLES / "dino_regrouped", *model, "--check", "forward,loss"))
    family = copy_with(
        "dino_regrouped", tmp_path, "return mmdet3.build_from(config)",
        "model = mmdet3.build_from(config)\n"
        "        model.transformer.encoder.layers[0].norms[0].eps = 1e-3\n"
        "        return model",
    )  # fmt: skip
    result = parity("run", "--family", family, *model, "--check", "forward", "--json")
    assert_named(result, "transformer.encoder.layers.0.norms.0")


def test_port_that_takes_a_fused_projection_apart_matches_within_derived_tolerance(tmp_path):
    derived = ("--tolerance", "derived", "--threads", 1)
    assert_matches(parity("run", "--family", EXAMPLES / "fused_attention", *derived, *EVERYTHING))
    family = copy_with("fused_attention", tmp_path, "** -0.5", "** -0.4")
    result = parity("run", "--family", family, *derived, "--check", "forward", "--json")
    assert_named(result, "blocks.0.attention")


def copy_with(example: str, folder: Path, right: str, wrong: str) -> Path:
    """Copy an example with an error in its port; return the copy's folder."""
    family = shutil.copytree(EXAMPLES / example, folder / example, ignore=shutil.ignore_patterns("__pycache__"))
    code = (family / "new.py").read_text()
    assert code.count(right) == 1
    (family / "new.py").write_text(code.replace(right, wrong))
    return family
