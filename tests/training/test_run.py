"""Trainings and evaluations of a few steps by the commands themselves."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from ddq_port.training.cli import cli as train
from ddq_port.training.eval_cli import cli as evaluate
from ddq_port.training.loading import weights


def call(command, *arguments, code=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def losses(outcome):
    """Return the losses of a training by step, from mmengine's log of numbers."""
    (log,) = (outcome / "vis_data").glob("scalars.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """Train two epochs of two steps; return the work dir and what `--json` printed."""
    work_dir = tmp_path_factory.mktemp("run") / "work"
    words = ("--work-dir", work_dir, "--seed", 3, "--no-preflight", "--ema", "--json", "-q")
    result = call(train, config, *words, "--cfg-options", "train_cfg.max_epochs=2")
    assert result.stderr == ""
    return work_dir, json.loads(result.stdout)


@pytest.fixture(scope="module")
def converted(trained, tmp_path_factory):
    """Return the trained weights as a .safetensors file, with the names of the classes."""
    path = tmp_path_factory.mktemp("converted") / "w.safetensors"
    content = torch.load(trained[0] / "epoch_2.pth", weights_only=True)
    meta = dict(dataset_meta=json.dumps(content["meta"]["dataset_meta"]))
    save_file({key: value.contiguous() for key, value in content["state_dict"].items()}, path, metadata=meta)
    return path


def test_outcome(trained):
    work_dir, outcome = trained
    assert (outcome["epochs"], outcome["iterations"], outcome["preflight"]) == (2, 4, None)
    assert outcome["checkpoint"] == str(work_dir / "epoch_2.pth") and outcome["best_score"] >= 0
    assert 0 <= outcome["metrics"]["coco/bbox_mAP"] <= 1
    torch.load(outcome["best"], weights_only=True)
    log = open(outcome["log"]).read()
    assert "ddq-train 0." in log and "preflight off: --no-preflight" in log and "eta: " in log


def test_same_seed_same_losses_and_resumed_as_if_never_stopped(config, trained, tmp_path):
    words = ("--work-dir", tmp_path / "work", "--seed", 3, "--no-preflight", "--ema", "-q")
    call(train, config, *words)
    result = call(train, config, *words, "--resume", "--cfg-options", "train_cfg.max_epochs=2")
    assert result.stdout.startswith(f"TRAINED 4 iterations, 2 epochs -> {tmp_path / 'work' / 'epoch_2.pth'}\n")
    found = {step: loss for run in sorted((tmp_path / "work").glob("2*_*")) for step, loss in losses(run).items()}
    (run,) = trained[0].glob("2*_*")
    assert len(found) == 4 and found == losses(run)
    logs = (tmp_path / "work").glob("2*_*/*.log")
    (digest,) = (line for log in logs for line in log.read_text().splitlines() if "begins with" in line)
    assert "epoch_1.pth sha256 " in digest


def test_begins_with_converted_weights(config, converted, tmp_path):
    words = ("--work-dir", tmp_path / "work", "--no-preflight", "-v", "--load-from", converted, "--amp")
    words += ("--amp-dtype", "bf16")
    result = call(train, config, *words)
    assert f"gives all {len(load_file(converted))} tensors of the model" in result.stderr
    assert f"begins with {converted} sha256 {weights.sha256(converted)}" in result.stderr
    assert result.stdout.startswith("TRAINED 2 iterations, 1 epoch ")


def test_weights_that_fit_in_part_are_refused_unless_allowed(config, converted, tmp_path):
    state = load_file(converted)
    state["level_embed"] = state["level_embed"][1:]
    torch.save(dict(state_dict=state), tmp_path / "part.pth")
    words = ("--work-dir", tmp_path / "work", "--no-preflight", "-q", "--load-from", tmp_path / "part.pth")
    text = call(train, config, *words, code=2).stderr
    assert "has `level_embed` as [3, 64] where the model has [4, 64]" in text
    assert not list((tmp_path / "work").glob("*.pth"))
    call(train, config, *words, "--partial")


def test_evaluation_of_either_format(config, trained, converted, tmp_path):
    words = ("--classwise", "--json", "-q", "--out", tmp_path / "p.json", "--show-dir", tmp_path / "drawn")
    first = json.loads(call(evaluate, config, trained[0] / "epoch_2.pth", *words).stdout)
    second = json.loads(call(evaluate, config, converted, "--json", "-q", "--classwise").stdout)
    assert first["metrics"] == second["metrics"] and first["images"] == 4
    assert {"coco/bbox_mAP", "coco/square_precision", "coco/disc_precision"} <= first["metrics"].keys()
    predictions = json.loads((tmp_path / "p.json").read_text())
    assert {box["category_id"] for box in predictions} <= {1, 2} and {box["image_id"] for box in predictions} == {
        0,
        1,
        2,
        3,
    }
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn", "p.json"]


def test_other_classes_are_refused_unless_they_are_known_to_be(config, trained, data, tmp_path):
    """A checkpoint of as many classes with other names loads without a word; so it is told, at every door."""
    content = json.loads((data / "annotations.json").read_text())
    content["categories"][0]["name"] = "box"
    (tmp_path / "renamed.json").write_text(json.dumps(content))
    renamed = ["--cfg-options"]
    for name in ("train", "val", "test"):
        place = f"{name}_dataloader.dataset"
        renamed += [f"{place}.ann_file={tmp_path / 'renamed.json'}", f"{place}.metainfo.classes=('box','disc')"]
    renamed += [f"{name}_evaluator.ann_file={tmp_path / 'renamed.json'}" for name in ("val", "test")]
    checkpoint, work_dir = trained[0] / "epoch_2.pth", tmp_path / "work"
    begin = (train, config, "--work-dir", work_dir, "--no-preflight", "-q", *renamed)
    for words in (
        (evaluate, config, checkpoint, *renamed),
        (*begin, "--load-from", checkpoint),
        (*begin, "--resume", checkpoint),
    ):
        text = call(*words, code=2).stderr
        assert text.startswith(f"error: {checkpoint} was trained for the classes square, disc, and t")
        assert "has box, disc: class 0 is `square` in the first and `box` in the second" in text
        assert "--allow-other-classes" in text and len(text.splitlines()) == 1 and not work_dir.exists()
    result = call(evaluate, config, checkpoint, "--allow-other-classes", *renamed)
    assert "--allow-other-classes: " in result.stderr and result.stdout.splitlines()[-1].startswith("EVALUATED 4 ")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model.bbox_head.num_classes=1"], "model.bbox_head.num_classes is 1 and t"),
        (["model.bbox_head.num_classes=3"], "has 2 classes (square, disc)"),
        (
            ["train_dataloader.dataset.metainfo.classes=square", "test_dataloader.dataset.metainfo.classes=square"],
            "is one text, 'square', which mmdet reads letter by letter",
        ),
        (
            [f"{name}_dataloader.dataset.metainfo.classes=('disc','square')" for name in ("train", "test")],
            "metainfo.classes is disc, square: the same names in another order",
        ),
    ],
)
def test_classes_that_disagree_end_it_before_anything_is_built(config, converted, tmp_path, settings, says):
    work_dir = tmp_path / "work"
    for words in (
        (train, config, "--work-dir", work_dir, "--no-check-data", "--no-preflight"),
        (evaluate, config, converted, "--work-dir", work_dir),
    ):
        result = call(*words, "--cfg-options", *settings, code=2)
        assert says in result.stderr and len(result.stderr.splitlines()) == 1 and result.stdout == ""
        assert not work_dir.exists()


def test_plain_mmdet_tooling_reads_safetensors(config, converted):
    from mmdet.apis import init_detector

    model = init_detector(config, str(converted), device="cpu")
    assert model.dataset_meta["classes"] == ("square", "disc")
    stored = weights.state_of(weights.read(converted))
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())


def test_loss_that_is_not_finite_ends_it(config, tmp_path):
    words = ("--work-dir", tmp_path / "work", "--no-preflight", "-q")
    result = call(train, config, *words, "--cfg-options", "model.bbox_head.loss_bbox.loss_weight=nan", code=1)
    assert result.stderr.startswith("error: ") and ".png" in result.stderr and result.stdout == ""
    (log,) = (tmp_path / "work").glob("2*_*/*.log")
    assert "NonFiniteLossError" in log.read_text()


def test_missing_image_is_named(config, data, tmp_path):
    content = json.loads((data / "annotations.json").read_text())
    content["images"][2]["file_name"] = "gone.png"
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    words = ("--work-dir", tmp_path / "work", "--no-preflight", "--no-check-data", "-q")
    files = f"train_dataloader.dataset.ann_file={tmp_path / 'annotations.json'}"
    result = call(train, config, *words, "--cfg-options", files, code=2)
    assert "gone.png" in result.stderr and len(result.stderr.splitlines()) == 1


def test_refused_preflight_trains_nothing(config, tmp_path, monkeypatch):
    from ddq_port.training.checks import preflight

    def mismatch(golden, device):
        raise preflight.PreflightError(f"{golden.name} on {device}")

    monkeypatch.setattr(preflight, "run", mismatch)
    result = call(train, config, "--work-dir", tmp_path / "work", code=1)
    assert "error: tiny_4scale.npz on cpu" in result.stderr and not (tmp_path / "work").exists()


def test_two_processes_train_together(config, tmp_path):
    words = [config, "--launcher", "pytorch", "--work-dir", tmp_path / "work", "--no-preflight", "--json", "-q"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, "-m", "ddq_port.training", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["iterations"] == 1 and (tmp_path / "work" / "epoch_1.pth").is_file()
    assert len(list((tmp_path / "work").glob("2*_*/*.log"))) == 1
