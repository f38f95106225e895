"""`ddq-parity preprocess`: both sides run over image files, and what is printed, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from parity.cli.main import cli

GIVEN = ("--family", "mmdet_ddq", "--variant", "tiny_r18", "--threads", "1", "--repeats", "1")


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    rows, columns = np.mgrid[0:37, 0:51]
    waves = [127 + 100 * np.sin((rows * (2 * c + 1) + columns * (5 - c)) / 9) for c in range(3)]
    path = tmp_path_factory.mktemp("images") / "waves.png"
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(path)
    return path


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["preprocess", *GIVEN, *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_equal_pipelines_match_transform_by_transform(image, tmp_path):
    out = tmp_path / "out"
    code, told, said = call("--images", image.parent, "--out", out)
    assert code == 0, said
    lines = told.splitlines()
    assert any(line.startswith("test: 1.Resize") and line.split()[-3:] == ["1", "1", "0"] for line in lines)
    assert lines[-1].startswith("MATCH 1 image: ") and "running the legacy side" in said
    report = json.loads((out / "report.json").read_text())
    assert (report["verdict"], report["summary"]) == ("MATCH", lines[-1])


def test_json_is_the_report_and_quiet_is_one_line(image):
    code, told, _ = call("--image", image, "--json", "--scale", "40x60")
    assert code == 0 and json.loads(told)["verdict"] == "MATCH"
    code, told, said = call("--image", image, "--quiet")
    assert (code, said, len(told.splitlines())) == (0, "", 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no image was given; pass --image FILE, or --images FOLDER"),
        (("--images", "none"), "none does not exist; expected a folder of images"),
        (("--image", "IMAGE", "--scale", "40x60,60x40"), "--scale gives 2 sizes; give one"),
        (("--image", "IMAGE", "--legacy-repo", "."), "needs no checkout"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(image, arguments, says):
    code, told, said = call(*(image if word == "IMAGE" else word for word in arguments))
    assert (code, told) == (2, "") and says in said


def test_a_folder_without_images_is_refused(tmp_path):
    code, told, said = call("--images", tmp_path)
    assert (code, told) == (2, "") and "has no image" in said
