"""The stored layouts, and conversions in both directions, against mmdet's own DDQ-DETR."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

pytest.importorskip("ddq_port")  # supplies the compiled operators that mmdet's models import
pytest.importorskip("mmdet")

from converters.cli.main import cli
from converters.reading import checkpoint
from converters.rules import engine
from converters.rules.detect import Detection, detect
from converters.rules.ports import port
from converters.writing import manifest
from tests.models import described, weights_of
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of
from tests.models import variants as variants_of

from . import mmdet_models

StateDict = dict[str, Tensor]
SameBytes = Callable[[StateDict, StateDict], None]
TWO_SIZES = pytest.mark.parametrize("built", ["tiny_r18", "r50_4scale"], indirect=True, scope="module")
TINY = pytest.mark.parametrize("built", ["tiny_r18"], indirect=True, scope="module")


@dataclass(frozen=True)
class Built:
    """A variant, mmdet's model of it, and the checkpoint that it saves after training, of arbitrary bits."""

    variant: str
    model: nn.Module
    trained: StateDict

    @property
    def canonical(self) -> StateDict:
        return {key: self.trained[key] for key in self.model.state_dict()}

    @property
    def duplicates(self) -> int:
        """Tell how many tensors are saved twice: weight and bias of three linear layers per decoder layer."""
        return 18 if self.variant.startswith("tiny") else 36

    def loaded(self, state_dict: StateDict) -> StateDict:
        """Return what the model holds after it has loaded `state_dict` strictly."""
        for tensor in self.model.state_dict().values():
            tensor.zero_()
        self.model.load_state_dict(state_dict, strict=True)
        return dict(self.model.state_dict())


@pytest.fixture(scope="module", params=variants_of("mmdet_ddq"))
def built(request: pytest.FixtureRequest) -> Built:
    """Build mmdet's model of each variant."""
    model = mmdet_models.build(request.param)
    model.load_state_dict(mmdet_models.random_bits(described(model, request.param)), strict=True)
    trained = {key: tensor.clone() for key, tensor in mmdet_models.trained_state(model).items()}
    return Built(request.param, model, trained)


@pytest.fixture(scope="module")
def source(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Save what the variant looks like after training, as a Runner does."""
    path = tmp_path_factory.mktemp(built.variant) / "epoch_12.pth"
    meta = {"epoch": 12, "dataset_meta": {"classes": ["disc", "box", "bar"]}}
    optimizer = torch.optim.AdamW(built.model.parameters()).state_dict()
    torch.save({"meta": meta, "state_dict": built.trained, "optimizer": optimizer}, path)
    yield path
    shutil.rmtree(path.parent)


def _convert(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)])


def _converted(*args: object) -> dict[str, Any]:
    result = _convert(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_mmdet_has_the_legacy_layout(built: Built) -> None:
    found, derived = described(built.model, built.variant), stored_layout(built.variant, "mmdet_ddq", "legacy")
    assert found == derived
    assert found.to_json() == derived.to_json()  # in the order of the model, too
    assert detect(built.trained) == Detection(port("ddq_detr", built.variant), "legacy")


def test_every_module_with_weights_is_paired_like_its_weights(built: Built) -> None:
    mapping = mapping_of("mmdet_ddq", built.variant)
    for path, module in built.model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            key = f"{path}.{name}".lstrip(".")
            assert mapping.target_of(key) == f"{mapping.map_module(path)}.{name}".lstrip(".")


def test_training_leaves_duplicates_that_the_mapping_knows(built: Built) -> None:
    extra = built.trained.keys() - stored_layout(built.variant, "mmdet_ddq", "legacy").tensors.keys()
    matches = [mapping_of("mmdet_ddq", built.variant).match(key) for key in extra]
    assert len(extra) == built.duplicates
    assert all(match is not None and match.twin in built.trained for match in matches)


def test_legacy_to_new_to_legacy_loads_strictly_and_is_the_same(built: Built, assert_same: SameBytes) -> None:
    mapping = mapping_of("mmdet_ddq", built.variant)
    new = engine.convert(built.trained, mapping, "new", stored_layout(built.variant, "mmdet_ddq"))
    legacy = engine.convert(new.state_dict, mapping, "legacy", stored_layout(built.variant, "mmdet_ddq", "legacy"))
    assert_same(built.loaded(dict(legacy.state_dict)), built.canonical)


def test_new_to_legacy_to_new_is_the_same(built: Built, assert_same: SameBytes) -> None:
    mapping, stored = mapping_of("mmdet_ddq", built.variant), stored_layout(built.variant, "mmdet_ddq")
    new = mmdet_models.random_bits(stored)
    legacy = engine.convert(new, mapping, "legacy", stored_layout(built.variant, "mmdet_ddq", "legacy"))
    assert_same(dict(engine.convert(built.loaded(dict(legacy.state_dict)), mapping, "new", stored).state_dict), new)


@TWO_SIZES
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_go_there_and_back(
    built: Built, source: Path, scratch: Path, suffix: str, assert_same: SameBytes
) -> None:
    new, back = scratch / f"new{suffix}", scratch / f"back{suffix}"
    there = _converted(source, new, "--family", "mmdet_ddq")
    again = _converted(new, back, "--to", "legacy", "--family", "mmdet_ddq")
    assert (there["renamed"], there["duplicates_dropped"]) == (8, built.duplicates)
    assert (again["renamed"], again["duplicates_dropped"], again["family"]) == (8, 0, "mmdet_ddq")
    assert_same(built.loaded(checkpoint.read(back).to_torch()), built.canonical)


@TWO_SIZES
def test_trained_checkpoint_loads_after_one_command(
    built: Built, source: Path, scratch: Path, assert_same: SameBytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match='Unexpected key.*"decoder.aux_reg_branches.0.0.weight"'):
        built.loaded(built.trained)
    result = _convert(source, scratch / "clean.pth", "--to", "legacy")
    count = len(built.canonical)
    assert result.stdout == (
        f"CONVERTED {count} tensors: {count} kept, 0 renamed, {built.duplicates} duplicates dropped "
        f"-> {scratch / 'clean.pth'} with message_hub, optimizer\n"
    )
    assert_same(built.loaded(torch.load(scratch / "clean.pth", weights_only=True)["state_dict"]), built.canonical)
    model, output = _init_detector(built.variant, scratch / "clean.pth", capfd)
    assert "do not match" not in output
    assert_same(dict(model.state_dict()), built.canonical)
    assert model.dataset_meta["classes"] == ["disc", "box", "bar"]


@TINY
def test_one_command_writes_what_two_would(source: Path, tmp_path: Path, assert_same: SameBytes) -> None:
    _converted(source, tmp_path / "clean.pth", "--to", "legacy")
    _converted(source, tmp_path / "new.pth")
    _converted(tmp_path / "new.pth", tmp_path / "back.pth", "--to", "legacy")
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("clean.pth", "back.pth"))
    assert_same(one.pop("state_dict"), two.pop("state_dict"))
    assert one["meta"].pop(manifest.KEY) != two["meta"].pop(manifest.KEY)  # each names its own source
    assert one == two


@TINY
def test_init_detector_complains_of_what_was_not_converted(
    built: Built, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _converted(source, tmp_path / "new.pth")
    for path, complaint in ((tmp_path / "new.pth", "missing keys"), (source, "unexpected key")):
        _, output = _init_detector(built.variant, path, capfd)
        assert "do not match" in output and complaint in output


def _init_detector(variant: str, path: Path, capfd: pytest.CaptureFixture[str]) -> tuple[nn.Module, str]:
    """Load a checkpoint as a user of plain mmdet does; return the model and what was printed meanwhile."""
    import mmdet
    from mmdet.apis import init_detector
    from mmdet.models import DDQDETR

    capfd.readouterr()
    model = init_detector(mmdet_models.config(variant), str(path), device="cpu")
    assert mmdet.__version__ == "3.3.0" and type(model) is DDQDETR
    return model, "".join(capfd.readouterr())


def test_checkpoint_of_a_training_step_goes_both_ways(tmp_path: Path, assert_same: SameBytes) -> None:
    model = _trained_one_step(tmp_path / "iter_1.pth")
    for target in ("new", "legacy"):
        done = _converted(tmp_path / "iter_1.pth", tmp_path / f"{target}.pth", "--to", target)
        assert done["duplicates_dropped"] == 18
    _converted(tmp_path / "new.pth", tmp_path / "back.pth", "--to", "legacy")
    for name in ("legacy.pth", "back.pth"):
        content = torch.load(tmp_path / name, weights_only=True)["state_dict"]
        mmdet_models.build("tiny_r18").load_state_dict(content, strict=True)
        assert_same(content, {key: tensor for key, tensor in model.state_dict().items() if key in content})


def _trained_one_step(path: Path) -> nn.Module:
    """Train mmdet's tiny model for one step and save what its Runner would save."""
    from mmengine.runner import save_checkpoint

    from legacy_adapters import mmdet3
    from parity.sides.prepare import seeded_batch

    model = mmdet_models.build("tiny_r18")
    model.load_state_dict(weights_of("tiny_r18", 0, "mmdet_ddq", "legacy"), strict=True)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])
    _, total = mmdet3.losses(model.train(), seeded_batch([(64, 64)], 0, 3))
    total.backward()
    optimizer.step()
    save_checkpoint(
        {"meta": {"iter": 1}, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, str(path)
    )
    return model
