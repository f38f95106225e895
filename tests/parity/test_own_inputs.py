"""Inputs that a user brings: named tensors in a file, image files, and what is refused of either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from legacy_adapters.inputs import Batch
from parity.cli.main import cli
from parity.sides.own_inputs import of_file, of_images
from parity.sides.settings import SettingsError
from parity.traces.trace import Trace

FAMILY = Path(__file__).with_name("sequence_family")
MADE = {"tokens": torch.zeros(2, 5, 8), "labels": torch.zeros(2, dtype=torch.int64)}


def saved(path: Path, **tensors: torch.Tensor) -> Path:
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, str(path))
    return path


def test_names_are_for_both_phases_or_for_one(tmp_path):
    tokens = torch.ones(1, 4, 8)
    file = saved(tmp_path / "a.safetensors", tokens=tokens, predict__labels=torch.tensor([1]), train__labels=torch.tensor([2]))
    given = of_file(file, {"predict": MADE, "train": MADE}, detects=False)
    assert torch.equal(given["predict"]["tokens"], tokens) and torch.equal(given["train"]["tokens"], tokens)
    assert [given[phase]["labels"].item() for phase in ("predict", "train")] == [1, 2]


@pytest.mark.parametrize(
    ("tensors", "detects", "says"),
    [
        (dict(tokens=torch.ones(1)), False, "lacks `labels`; phase predict of this family has the inputs `labels`, `tokens`"),
        (dict(MADE, more=torch.ones(1)), False, "has `more`, which nothing takes"),
        (dict(MADE, labels=torch.ones(2)), False, "`labels` of b.safetensors is float32, expected int64"),
        (dict(image=torch.ones(1, 3, 8, 8)), True, "needs `images`, float32 [bs, channels, height, width]; found none"),
        (dict(images=torch.ones(3, 8, 8)), True, "found float32[3, 8, 8]"),
        (dict(images=torch.ones(1, 3, 8, 8), boxes=torch.ones(1)), True, "has `boxes`, which is no input"),
        (dict(images=torch.ones(1, 3, 8, 8), gt_bboxes__0=torch.ones(1, 4)), True, "lacks `gt_labels.0`"),
    ],
    ids=["missing", "more", "dtype", "no images", "shape", "strange", "half"],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, monkeypatch, tensors, detects, says):
    monkeypatch.chdir(tmp_path)
    file = saved(Path("b.safetensors"), **tensors)
    with pytest.raises(SettingsError) as raised:
        of_file(file, {"predict": MADE, "train": MADE}, detects)
    assert says in str(raised.value)


def test_images_become_a_batch(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    Image.fromarray(np.full((20, 30, 3), (255, 0, 0), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "b.jpg", exif=exif)
    tensors = of_images([tmp_path / "a.png", tmp_path / "b.jpg"], None, 32)["train"]
    batch = Batch.from_tensors(dict(tensors), "cpu", torch.float32)
    assert batch.images.shape == (2, 3, 32, 32) and batch.image_sizes == ((20, 30), (30, 20))
    assert batch.images[0, :, 0, 0].tolist() == pytest.approx([(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375])
    assert not batch.images[0, :, 20:].any() and [len(labels) for labels in batch.gt_labels] == [2, 2]
    resized = of_images([tmp_path / "a.png"], [(40, 45)], 1)["predict"]
    assert resized["images"].shape == (1, 3, 40, 45) and resized["scale_factors"].tolist() == [[1.5, 2.0]]
    (tmp_path / "c.png").write_bytes(b"none")
    with pytest.raises(SettingsError, match="c.png is no image that can be read"):
        of_images([tmp_path / "c.png"], None, 1)
    with pytest.raises(SettingsError, match="--size gives 1 size for 2 images; give one for each."):
        of_images([tmp_path / "a.png", tmp_path / "b.jpg"], [(40, 45)], 1)


def test_a_file_of_images_alone_is_a_batch_without_objects_that_fills_its_images(tmp_path):
    images = torch.linspace(-1, 1, 2 * 3 * 8 * 16).reshape(2, 3, 8, 16)
    given = of_file(saved(tmp_path / "a.safetensors", images=images), {"predict": {}, "train": {}}, detects=True)
    for phase in ("predict", "train"):
        batch = Batch.from_tensors(dict(given[phase]), "cpu", torch.float32)
        assert torch.equal(batch.images, images) and batch.image_sizes == ((8, 16), (8, 16))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--inputs", "here", "--image", "here"], "--inputs and --image are two ways to give inputs"),
        (["--inputs", "here", "--objects", "1"], "--objects is of made-up inputs"),
        (["--inputs", "here", "--size", "64x64"], "--size is of made-up inputs and of --image"),
        (["--inputs", "none.safetensors"], "none.safetensors does not exist; expected named tensors"),
        (["--image", "here", "--size", "64x64,64x64"], "--size gives 2 sizes for 1 image"),
    ],
    ids=["both", "objects", "size", "no file", "sizes"],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    Path("here").write_bytes(b"x")
    done = CliRunner().invoke(cli, ["run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *arguments])
    assert done.exit_code == 2 and says in " ".join(done.output.split())


def test_both_sides_are_given_the_file(tmp_path):
    tokens = torch.linspace(-0.5, 0.5, 3 * 7 * 8).reshape(3, 7, 8)
    file = saved(tmp_path / "own.safetensors", tokens=tokens, labels=torch.tensor([0, 1, 2]))
    arguments = ["--family", str(FAMILY), "--inputs", str(file), "--check", "forward", "--threads", "1", "--tolerance", "fixed"]
    done = CliRunner().invoke(cli, ["run", *arguments, "--out", str(tmp_path / "RUN"), "-q"])
    assert not done.output.startswith("MISMATCH"), done.output  # a family of this size leaves out too much for a match
    for side in ("legacy", "new"):
        shapes = {record.shape for record in Trace.load(tmp_path / "RUN" / side).records}
        assert {(3, 7, 8), (7, 3, 8)} & shapes
