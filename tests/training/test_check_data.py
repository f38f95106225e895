"""`ddq-train check-data`, and the same check before a training."""

import json

import pytest
from click.testing import CliRunner

from ddq_port.training.check_data import DataError, before_training
from ddq_port.training.cli import cli
from ddq_port.training.config import TrainOptions, for_training


def run(*arguments):
    return CliRunner(env={"NO_COLOR": "1"}).invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def broken(data, tmp_path):
    """A copy of the annotations with a box outside, a crowd and an image that is not there."""
    content = json.loads((data / "annotations.json").read_text())
    content["annotations"][2]["bbox"][0] = 200
    content["annotations"][3]["iscrowd"] = 1
    content["images"].append(dict(id=99, file_name="gone.png", width=80, height=64))
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(content))
    return file


def test_good_data(data):
    result = run("check-data", data / "annotations.json", "--images", data / "images")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:3] == [
        "label  class   annotations",
        "    0  square            3",
        "    1  disc              3",
    ]
    assert result.stdout.splitlines()[-1].startswith("USABLE ")
    assert "4 images (0 without objects), 6 annotations, 2 classes; 0 errors, 0 warnings, 0 notes" in result.stdout


def test_bad_data(data, broken):
    result = run("check-data", broken, "--images", data / "images")
    assert result.exit_code == 1 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert f"  {data / 'images' / 'gone.png'}: image 99: there is no such file" in lines
    assert any(line.startswith("error outside (1): ") for line in lines)
    assert any(line.startswith(f"  {broken}: annotation 3: bbox [200, ") for line in lines)
    assert any(line.startswith("note crowd (1): ") for line in lines)
    assert lines[-1].startswith("UNUSABLE ") and lines[-1].endswith("2 errors, 0 warnings, 1 note")


def test_many_of_a_kind_are_cut(data, tmp_path):
    content = json.loads((data / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["bbox"][2] = 0
    (tmp_path / "many.json").write_text(json.dumps(content))
    result = run("check-data", tmp_path / "many.json")
    assert result.exit_code == 0
    assert "  and 1 more" in result.stdout.splitlines() and result.stdout.count(": annotation ") == 5


def test_quiet_and_json(data, broken):
    quiet = run("check-data", broken, "-q")
    assert quiet.exit_code == 1 and len(quiet.stdout.splitlines()) == 1
    told = json.loads(run("check-data", broken, "--json", "--images", data / "images", "--no-read-images").stdout)
    assert not told["ok"] and told["severities"] == dict(error=2, warning=0, note=1)
    assert {problem["where"] for problem in told["problems"]} == {"annotation 3", "annotation 4", "image 99"}


@pytest.mark.parametrize(
    "words", [("missing.json",), ("{data}/annotations.json", "--images", "{data}/nowhere"), ("{data}",)]
)
def test_bad_usage(data, words):
    result = run("check-data", *(word.format(data=data) for word in words))
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def config_of(config, tmp_path, train, val, **more):
    options = TrainOptions(config, tmp_path / "work", data=train, val_data=val, **more)
    return for_training(options)


def test_own_data_in_a_config(config, data, tmp_path):
    files = (data / "annotations.json", data / "images")
    cfg, notes = config_of("ddq-detr-4scale_tiny", tmp_path, files, files)
    assert "classes: square, disc" in notes
    assert cfg.model.bbox_head.num_classes == 2 and cfg.val_evaluator.ann_file == str(files[0])
    said = []
    before_training(cfg, said.append)
    assert said == []


def test_errors_end_it_before_it_begins(config, data, broken, tmp_path):
    good = (data / "annotations.json", data / "images")
    cfg, _ = config_of(config, tmp_path, good, (broken, data / "images"))
    said = []
    with pytest.raises(DataError, match="The data of val_dataloader have 2 errors, .* or pass --no-check-data"):
        before_training(cfg, said.append)
    assert any("image 99" in line for line in said) and not any("crowd" in line for line in said)
    result = run(config, "--no-preflight", "--work-dir", tmp_path / "w", "--data", *good, "--val-data", broken, good[1])
    assert result.exit_code == 1 and "have 2 errors" in result.stderr and not (tmp_path / "w").exists()


def test_classes_of_the_config_that_the_data_do_not_have(config, data, tmp_path):
    cfg, _ = for_training(TrainOptions(config, tmp_path / "work"))
    cfg.train_dataloader.dataset.pop("metainfo")  # mmdet takes COCO's 80 classes then
    with pytest.raises(DataError, match="the config's `person`, .* are not in the file"):
        before_training(cfg, lambda line: None)


@pytest.mark.parametrize("wrapper", [dict(type="RepeatDataset", times=2), dict(type="ConcatDataset")])
def test_wrapped_data_sets_are_checked(config, data, broken, tmp_path, wrapper):
    cfg, _ = for_training(TrainOptions(config, tmp_path / "work"))
    dataset = dict(cfg.train_dataloader.dataset, ann_file=str(broken), data_root="")
    inner = dict(datasets=[dataset]) if wrapper["type"] == "ConcatDataset" else dict(dataset=dataset)
    cfg.train_dataloader.dataset = dict(wrapper, **inner)
    with pytest.raises(DataError, match="train_dataloader have"):
        before_training(cfg, lambda line: None)


def test_validation_data_alone(config, data, tmp_path):
    result = run(config, "--work-dir", tmp_path / "w", "--val-data", data / "annotations.json", data / "images")
    assert result.exit_code == 2 and "--val-data goes with --data" in result.stderr
