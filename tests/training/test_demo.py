"""`ddq-train demo`, cut short: everything is there, the same seed gives the same bits, errors are one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddq_port import configs
from ddq_port.data.check import check
from ddq_port.training import demo
from ddq_port.training.cli import cli
from ddq_port.training.demo import Outcome, Settings


def run(*arguments):
    return CliRunner(env={"NO_COLOR": "1"}).invoke(cli, ["demo", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module", autouse=True)
def few_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "VALIDATION_IMAGES", 8)
        patch.setattr(demo, "TRAINING_IMAGES", 24)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(folder):
    result = run("--work-dir", folder / "first", "--steps", 4, "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_everything_is_there(done, folder):
    import cv2

    assert done["steps"] == 4 and list(done["aps"]) == ["1", "2", "3", "4"] and 0 <= done["ap"] < 0.5
    for name in ("predictions", "curves"):
        assert cv2.imread(done["files"][name]).shape[1] > 1000
    for file in done["files"].values():
        assert file.startswith(str(folder / "first"))
    assert len(json.loads((folder / "first" / "val_predictions.bbox.json").read_text())) > 0
    data = folder / "first" / "data"
    assert check(data / "annotations" / "train.json", data / "train").images == 24


def test_the_log_holds_the_loss_of_every_step(done):
    from ddq_port.training.output import curves

    losses = curves.read(done["files"]["config"].rpartition("/")[0]).training["loss"]
    assert losses.steps == [1, 2, 3, 4] and losses.values[0] == done["first_loss"]
    assert demo.losses_sha256(losses.values) == done["losses_sha256"]


def test_the_same_seed_gives_the_same_losses(done, folder):
    again = demo.demonstrate(Settings(folder / "again", steps=4, threads=1))
    assert again.losses_sha256 == done["losses_sha256"] and again.ap == done["ap"]


def test_another_seed_and_weights_to_begin_with(done, folder):
    checkpoint = Path(done["files"]["checkpoint"])
    other = demo.demonstrate(Settings(folder / "other", seed=1, steps=2, threads=1, load_from=checkpoint))
    assert other.losses_sha256 != done["losses_sha256"]
    log = Path(other.files["log"]).read_text()
    assert f"begins with {checkpoint}" in log and "gives all" in log


def test_a_work_dir_that_is_not_empty(tmp_path):
    (tmp_path / "mine").write_text("")
    result = run("--work-dir", tmp_path)
    assert result.exit_code == 2 and "is not empty; choose another --work-dir" in result.stderr
    assert len(list(tmp_path.iterdir())) == 1 and "Traceback" not in result.stderr


def test_weights_that_are_not_there(tmp_path):
    result = run("--work-dir", tmp_path / "new", "--steps", 2, "--load-from", tmp_path / "none.pth")
    assert result.exit_code == 2 and "none.pth" in result.stderr and "Traceback" not in result.stderr


OUTCOME = Outcome(0.81, 0.80, {1000: 0.81}, {"coco/bbox_mAP_50": 0.9}, 1000, 300.0, 40.0, 4.0, "ab" * 32, {})


def test_the_verdict():
    assert (
        OUTCOME.reached and OUTCOME.lines()[0] == "REACHED AP 0.810, expected at least 0.80, after 1000 steps in 300 s"
    )
    missed = replace(OUTCOME, ap=0.799)
    assert not missed.reached and missed.lines()[0].startswith("MISSED AP 0.799, expected")
    free = replace(OUTCOME, ap=0.1, expected=None)
    assert free.reached and free.lines()[0] == "TRAINED AP 0.100, after 1000 steps in 300 s"


def test_a_missed_ap_is_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "demonstrate", lambda settings, quiet, progress: replace(OUTCOME, ap=0.5))
    result = run("--work-dir", tmp_path)
    assert result.exit_code == 1 and result.stdout.startswith("MISSED")


@pytest.mark.parametrize("steps", [2, 3, 10, 40, 2000])
def test_the_schedule_fits_the_steps(tmp_path, steps):
    from ddq_port.data import shapes

    shapes.write(tmp_path / "data", (shapes.Split("train", 1, 0), shapes.Split("val", 1, 1)))
    cfg = demo.config(tmp_path / "data", steps)
    warmup, decay = cfg.param_scheduler
    assert 0 < warmup.end == decay.begin < decay.end == steps == cfg.train_cfg.max_iters
    assert decay.T_max == steps - warmup.end and 0 < cfg.train_cfg.val_interval <= steps


def test_the_config_is_a_tiny_variant():
    """Weights of the demo convert like those of the tests: the layouts are equal."""
    shapes_, tiny = (configs.load(name).model for name in (demo.CONFIG, configs.VARIANTS["tiny_r18"]))
    for part in ("neck", "encoder", "decoder", "bbox_head", "positional_encoding"):
        assert shapes_[part] == tiny[part]
    for part in ("depth", "base_channels"):
        assert shapes_.backbone[part] == tiny.backbone[part]
