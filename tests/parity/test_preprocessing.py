"""Image files through both sides' pipelines: what differs is named at its transform, what does not is a match."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from legacy_adapters.recording.trace_writer import TraceWriter
from parity.cli.main import cli
from parity.evaluation.preprocessing import judge
from parity.evaluation.preprocessing_report import as_dict, closing_line, print_verdict
from parity.evaluation.preprocessing_run import described
from parity.evaluation.transforms import describe
from parity.traces.trace import Trace

LOAD, RESIZE = dict(type="LoadImageFromFile"), dict(type="Resize", scale=(90, 60), keep_ratio=True)
PACK = dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "scale_factor"))
FLIP = dict(type="RandomFlip", prob=0.5)
CHOICE = dict(
    type="RandomChoice",
    transforms=[
        [dict(type="RandomChoiceResize", scales=[(48, 90), (64, 90)], keep_ratio=True)],
        [dict(type="RandomCrop", crop_size=(20, 20), allow_negative_crop=True)],
    ],
)
TEST = [LOAD, RESIZE, PACK]
TRAIN = [LOAD, dict(type="LoadAnnotations", with_bbox=True), FLIP, CHOICE, PACK]
PREPROCESSOR = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=1)


def pixels(height, width, channels=3):
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin((rows * (2 * c + 1) + columns * (5 - c)) / 9) for c in range(channels)]
    return np.stack(waves, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    exif = Image.Exif()
    exif[274] = 6
    saved = {
        "odd.png": (pixels(37, 51), {}), "grey.png": (pixels(40, 30, 1)[:, :, 0], {}), "turned.jpg": (pixels(30, 48), dict(exif=exif)),
        "alpha.png": (pixels(33, 44, 4), {}), "line.png": (pixels(1, 50), {}),
    }  # fmt: skip
    for name, (array, options) in saved.items():
        Image.fromarray(array).save(folder / name, **options)
    Image.fromarray(pixels(30, 40, 4), "CMYK").save(folder / "cmyk.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    return [folder / name for name in (*saved, "cmyk.jpg", "broken.jpg")]


class Pipelines:
    """An adapter of nothing but pipelines."""

    label = "pipelines.py"

    def __init__(self, test, train, preprocessor):
        self.test, self.train, self.preprocessor = test, train, preprocessor

    def can(self, name):
        return True

    def preprocessing(self, model, options):
        from mmdet.models.data_preprocessors import DetDataPreprocessor
        from mmengine.config import Config

        from legacy_adapters.bases import pipelines3

        config = Config(
            dict(test_dataloader=dict(dataset=dict(pipeline=self.test)), train_dataloader=dict(dataset=dict(pipeline=self.train)))
        )
        return pipelines3.preprocessing(SimpleNamespace(data_preprocessor=DetDataPreprocessor(**self.preprocessor)), config)


def recorded(folder, images, test=TEST, train=TRAIN, repeats=2, **preprocessor) -> Trace:
    import mmdet.datasets.transforms  # noqa: F401  (registers them)
    from mmengine.registry import DefaultScope

    import ddq_port.models  # noqa: F401  (supplies mmcv._ext)
    from legacy_adapters.tasks import preprocessing

    listed = folder.parent / f"{folder.name}.json"
    listed.write_text(json.dumps([described(number, file, 0) for number, file in enumerate(images)]))
    job = SimpleNamespace(seed=0, options={}, preprocess=dict(images=str(listed), repeats=repeats))
    adapter = Pipelines(test, train, {**PREPROCESSOR, **preprocessor})
    with DefaultScope.overwrite_default_scope("mmdet"):
        preprocessing.run(job, adapter, None, TraceWriter(str(folder)), dict(seed=0))
    return Trace.load(folder)


@pytest.fixture(scope="module")
def legacy(images, tmp_path_factory) -> Trace:
    return recorded(tmp_path_factory.mktemp("runs") / "legacy", images)


@pytest.fixture(scope="module")
def few(images, tmp_path_factory) -> Trace:
    return recorded(tmp_path_factory.mktemp("runs") / "few", images[:3])


def test_equal_pipelines_match_and_what_both_refuse_is_told(legacy, images, tmp_path):
    names = [file.name for file in images]
    verdict = judge(legacy, recorded(tmp_path / "new", images), names)
    assert (verdict.outcome, verdict.exit_code, verdict.differences) == ("MATCH", 0, ())
    assert set(verdict.refused) == {names.index("broken.jpg")}
    assert closing_line(verdict, names).startswith("MATCH 7 images, 1 of them refused by both sides: ")
    run = {(step.pipeline, step.transform): step.images for step in verdict.steps}
    assert run["test", "data_preprocessor"] == 6 and run["training", "data_preprocessor"] == 12
    assert any("/" in transform for _, transform in run)  # what RandomChoice holds


def changed(pipeline, kind, **options):
    steps = copy.deepcopy(pipeline)
    next(step for step in steps if step["type"] == kind).update(options)
    return steps


CROP = copy.deepcopy(TRAIN)
CROP[3]["transforms"][1][0]["crop_size"] = (21, 20)
FAULTS = {
    "no exif": (dict(test=changed(TEST, "LoadImageFromFile", color_type="color_ignore_orientation")), "0.LoadImageFromFile", "became"),
    "interpolation": (dict(test=changed(TEST, "Resize", interpolation="bicubic")), "1.Resize", "by up to"),
    "scale": (dict(test=changed(TEST, "Resize", scale=(90, 59))), "1.Resize", "became"),
    "stretched": (dict(test=changed(TEST, "Resize", keep_ratio=False)), "1.Resize", "became"),
    "swap": (dict(bgr_to_rgb=False), "data_preprocessor", ""),
    "mean": (dict(mean=[123.675, 116.28, 103.5]), "data_preprocessor", "by up to"),
    "padding": (dict(pad_size_divisor=32), "data_preprocessor", "became"),
    "meta": (dict(test=changed(TEST, "PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape"))), "data_preprocessor", "alone"),
    "flip": (dict(train=changed(TRAIN, "RandomFlip", prob=0.9)), "2.RandomFlip", ""),
    "flip vertical": (dict(train=changed(TRAIN, "RandomFlip", direction="vertical")), "2.RandomFlip", "differ"),
    "crop": (dict(train=CROP), "3.RandomChoice/1.Compose/0.RandomCrop", "became"),
    "order": (dict(train=[TRAIN[0], TRAIN[1], CHOICE, FLIP, PACK]), "2.RandomChoice", "RandomFlip in its place"),
    "no flip": (dict(train=[step for step in TRAIN if step is not FLIP]), "2.RandomFlip", "on the legacy side only"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_difference_is_named_at_its_transform(few, images, tmp_path, fault):
    changes, transform, note = FAULTS[fault]
    images, legacy = images[:3], few
    names = [file.name for file in images]
    verdict = judge(legacy, recorded(tmp_path / "new", images, **changes), names)
    assert (verdict.outcome, verdict.exit_code) == ("MISMATCH", 1)
    assert {one.transform for one in verdict.differences} == {transform}
    assert any(note in one.note for one in verdict.differences)
    assert f"{transform}" in closing_line(verdict, names)
    assert as_dict(verdict, names)["first"]["transform"] == transform


def test_a_swap_of_channels_and_a_rounded_scale_are_said_so(few, images, tmp_path):
    from mmcv.transforms import LoadImageFromFile, Resize
    from mmdet.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class LoadRGB(LoadImageFromFile):
        def transform(self, results):
            results = super().transform(results)
            return {**results, "img": results["img"][..., ::-1].copy()}

    @TRANSFORMS.register_module(force=True)
    class RoundedResize(Resize):
        def _resize_img(self, results):
            super()._resize_img(results)
            results["scale_factor"] = tuple(round(number, 1) for number in results["scale_factor"])

    names = [file.name for file in images[:3]]
    swapped = judge(few, recorded(tmp_path / "swapped", images[:3], repeats=2, bgr_to_rgb=False), names)
    said = "the three channels come in the opposite order"
    assert {one.note for one in swapped.differences if one.image == 0} == {f"{said} before they are normalised"}
    assert "Settings of the preprocessor differ: `_channel_conversion` 1 became 0." in swapped.reasons
    steps = [{**LOAD, "type": "LoadRGB"}, RESIZE, PACK]
    loaded = judge(few, recorded(tmp_path / "loaded", images[:3], test=steps), names)
    place = "(the legacy side has 0.LoadImageFromFile in its place)"
    assert {(one.transform, one.note) for one in loaded.differences} == {("0.LoadRGB", f"{said} {place}")}
    steps = [LOAD, {**RESIZE, "type": "RoundedResize"}, PACK]
    rounded = judge(few, recorded(tmp_path / "rounded", images[:3], test=steps), names)
    assert {(one.transform, one.slot.partition(".")[0]) for one in rounded.differences} == {("1.RoundedResize", "scale_factor")}


def test_tensors_are_described():
    image = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    assert describe(image, image.flip(-1)) == "the three channels come in the opposite order"
    assert describe(image, image.flip(1)) == "mirrored along the last but one axis"
    assert describe(image, image[:1]) == "[2, 4, 3] became [1, 4, 3]"
    assert describe(image, image.int()) == "uint8 became int32"
    assert describe(image, image.clone().index_fill_(0, torch.tensor([0]), 0)).startswith("45.8% of the elements differ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no image was given"),
        (["--image", "none.png"], "none.png does not exist; expected an image"),
        (["--images", "none"], "none does not exist; expected a folder of images"),
    ],
    ids=["nothing", "no file", "no folder"],
)
def test_images_that_are_not_there_are_refused(arguments, says):
    done = CliRunner().invoke(cli, ["preprocess", "--family", "mmdet_ddq", "--variant", "tiny_4scale", *arguments])
    assert done.exit_code == 2 and says in done.output


@pytest.fixture(scope="module")
def odd(images, tmp_path_factory):
    """Return a function that records one image through the test pipeline, with a transform that may do odd things."""
    from mmdet.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class Odd:
        def __init__(self, fails="", skips=False, ones="", **leaves):
            self.fails, self.skips, self.leaves = fails, skips, leaves
            if ones:
                self.leaves["ones"] = np.ones(3, ones)

        def __call__(self, results):
            if self.fails:
                raise ValueError(self.fails)
            return None if self.skips else {**results, **self.leaves}

    def record(options, **preprocessor):
        steps = TEST if options is None else [LOAD, dict(type="Odd", **options), *TEST[1:]]
        return recorded(tmp_path_factory.mktemp("odd") / "run", images[:1], test=steps, repeats=0, **preprocessor)

    return record


@pytest.mark.parametrize(
    ("legacy", "new", "outcome", "note"),
    [
        ({}, dict(fails="no"), "MISMATCH", "only the new side fails: ValueError: no"),
        ({}, dict(skips=True), "MISMATCH", "only the new side leaves the image out"),
        (dict(way="a"), dict(way="b"), "MISMATCH", "'a' became 'b'"),
        (dict(fails="no"), None, "MISMATCH", "is on the legacy side only"),
        (dict(ones="int64"), dict(ones="float32"), "MATCH", ""),
        ({}, None, "MATCH", "On the legacy side only, without an effect on what follows: `1.Odd`."),
        (None, {}, "MATCH", "On the new side only, without an effect on what follows: `1.Odd`."),
    ],
    ids="fails skips text lone-failure number legacy-only new-only".split(),
)
def test_what_one_transform_does_otherwise_is_said(odd, legacy, new, outcome, note):
    verdict = judge(odd(legacy), odd(new), ["odd.png"])
    assert verdict.outcome == outcome
    if outcome == "MATCH":
        assert verdict.notes == ((note,) if note else ())
    else:
        assert [(one.transform, one.note) for one in verdict.differences] == [("1.Odd", note)]


def test_an_image_that_both_sides_refuse_each_in_its_words_proves_nothing(odd):
    verdict = judge(odd(dict(fails="too small")), odd(dict(fails="of 37 rows")), ["odd.png"])
    assert verdict.refused == {0: "1.Odd: ValueError: too small"} and verdict.differences == ()
    assert verdict.outcome == "INCOMPARABLE"
    assert verdict.reasons == ("No image went through both pipelines to their end.",)


def test_a_swap_of_channels_that_are_not_normalised_is_said(odd):
    plain = dict(mean=None, std=None)
    (one,) = judge(odd(None, **plain), odd(None, **plain, bgr_to_rgb=False), ["odd.png"]).differences
    assert (one.transform, one.slot, one.note) == (
        "data_preprocessor", "inputs", "the three channels come in the opposite order"
    )  # fmt: skip


def test_settings_and_versions_that_have_no_effect_are_noted(odd):
    legacy, new = odd(None), odd(None, pad_value=1)

    def with_version(side, version):
        packages = {"cv2": {"version": version}, "numpy": {"version": "2.0"}}
        return replace(side, provenance={**side.provenance, "packages": packages})

    sides = with_version(legacy, "4.5"), with_version(new, "4.9")
    verdict = judge(*sides, ["odd.png"])
    assert verdict.outcome == "MATCH" and verdict.notes == (
        "Settings of the preprocessor differ without an effect: `pad_value` 0 became 1.",
        "cv2 is 4.5 on the legacy side and 4.9 on the new one.",
    )  # fmt: skip


def test_what_is_refused_noted_and_different_is_printed_up_to_a_number(odd):
    verdict = judge(odd(dict(way="a")), odd(dict(way="b")), ["odd.png"])
    told = replace(verdict, refused={0: "1.Odd: no"}, notes=("Be careful.",), differences=verdict.differences * 12)
    console = Console(file=io.StringIO(), width=80)
    print_verdict(told, ["odd.png"], console, quiet=False)
    lines = console.file.getvalue().splitlines()
    assert "  refused by both sides: odd.png (1.Odd: no)" in lines and "note: Be careful." in lines
    assert lines.count("  odd.png, test: 1.Odd leaves another `way`: 'a' became 'b'") == 10
    assert "  and 2 more; see --json" in lines
