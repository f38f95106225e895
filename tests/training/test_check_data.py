"""`ddq-train check-data`, and the same check before a training."""

import json

import pytest
from click.testing import CliRunner

from ddq_port.training.checks import check_data as check_data_module
from ddq_port.training.checks.check_data import DataError, before_evaluation, before_training
from ddq_port.training.cli import cli
from ddq_port.training.output import image_progress
from ddq_port.training.settings.config import for_training
from ddq_port.training.settings.options import TrainOptions


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
    assert result.exit_code == 1  # nothing is left to train on
    assert "  and 1 more" in result.stdout.splitlines() and result.stdout.count(": annotation ") == 5


def test_quiet_and_json(data, broken):
    quiet = run("check-data", broken, "-q")
    assert quiet.exit_code == 1 and len(quiet.stdout.splitlines()) == 1
    told = json.loads(run("check-data", broken, "--json", "--images", data / "images", "--no-read-images").stdout)
    assert not told["ok"] and told["severities"] == dict(error=2, warning=0, note=1)
    assert {problem["where"] for problem in told["problems"]} == {"annotation 3", "annotation 4", "image 99"}
    assert told["truth"]["objects"] == 5 and told["decoded"] == 0


@pytest.mark.parametrize(
    "words", [("missing.json",), ("{data}/annotations.json", "--images", "{data}/nowhere"), ("{data}",)]
)
def test_bad_usage(data, words):
    result = run("check-data", *(word.format(data=data) for word in words))
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1


def changed(data, tmp_path, change):
    """Write a changed copy of the annotations and return its path."""
    content = json.loads((data / "annotations.json").read_text())
    change(content)
    (tmp_path / "changed.json").write_text(json.dumps(content))
    return tmp_path / "changed.json"


def without_crowds(content):
    for annotation in content["annotations"]:
        del annotation["iscrowd"]


def from_zero(content):
    for annotation in content["annotations"]:
        annotation["id"] -= 1


def test_what_mmdet_makes_of_it_is_told(data, tmp_path):
    lines = run("check-data", data / "annotations.json").stdout.splitlines()
    assert "mmdet trains on 4 of 4 images" in lines and "the truth itself reaches AP 1.000 (6 objects)" in lines
    lines = run("check-data", changed(data, tmp_path, from_zero)).stdout.splitlines()
    assert any(line.startswith("the truth itself reaches AP 0.") for line in lines)
    assert any("(6 objects; 1 not found: annotation id 0)" in line for line in lines)
    assert any("--fix OUT.json` mends it" in line for line in lines)


def test_filters_and_loader_of_a_config(config, data, tmp_path):
    (tmp_path / "large.py").write_text(
        f"_base_ = [{config!r}]\ntrain_dataloader = dict(dataset=dict(filter_cfg=dict(min_size=70)))\n"
        "model = dict(test_cfg=dict(max_per_img=1))\n"
    )
    result = run("check-data", data / "annotations.json", "--config", tmp_path / "large.py")
    assert result.exit_code == 1 and "4 of 4 images will not be trained: smaller than min_size 70" in result.stdout
    assert "2 objects, the model gives 1 detections (max_per_img)" in result.stdout
    assert run("check-data", data / "annotations.json", "--config", config).exit_code == 0


def test_headers_alone(data, tmp_path):
    (tmp_path / "img").mkdir()
    for file in (data / "images").iterdir():
        (tmp_path / "img" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "img" / "2.png").write_bytes((data / "images" / "2.png").read_bytes()[:-30])
    arguments = ("check-data", data / "annotations.json", "--images", tmp_path / "img")
    assert run(*arguments, "--fast").exit_code == 0
    whole = run(*arguments)
    assert whole.exit_code == 1 and "image 2: the PNG file ends too early" in whole.stdout


def test_mending(data, tmp_path):
    file, out = changed(data, tmp_path, without_crowds), tmp_path / "out.json"
    result = run("check-data", file, "--fix", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [f"FIX {file} -> {out}", "  iscrowd: 0 for 6 annotations without it"]
    assert result.stdout.splitlines()[-1].startswith(f"USABLE {out}: ")
    again = run("check-data", file, "--fix", out)
    assert again.exit_code == 2 and "overwrites nothing" in again.stderr
    nothing = run("check-data", data / "annotations.json", "--fix", tmp_path / "new.json", "--json")
    assert json.loads(nothing.stdout)["changes"] == [] and not (tmp_path / "new.json").exists()


def test_nothing_to_mend_is_said(data, tmp_path):
    result = run("check-data", data / "annotations.json", "--fix", tmp_path / "new.json")
    assert result.exit_code == 0 and "FIX wrote nothing" in result.stdout


@pytest.mark.parametrize("verb", ["check-data", "run"])
def test_a_data_set_of_another_format(config, data, tmp_path, verb):
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "1.xml").write_text("<annotation></annotation>")
    given = [tmp_path / "voc", "--images", data / "images"]
    if verb == "run":
        given = [config, "--no-preflight", "--work-dir", tmp_path / "w", "--data", tmp_path / "voc", data / "images"]
        given += ["--val-data", *given[-2:]]
    result = run(verb, *given)
    assert result.exit_code == 2 and "is in Pascal VOC format; expected COCO format" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (("--config", "nowhere"), "neither a file nor an installed config"),
        (("--fix", "{data}/nowhere/out.json"), "There is no folder"),
        (("--fix", "{data}/annotations.json"), "overwrites nothing"),
    ],
)
def test_options_that_cannot_be(data, words, said):
    result = run("check-data", data / "annotations.json", *(word.format(data=data) for word in words))
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.splitlines()) == 1


def test_progress_on_a_terminal_and_in_a_log(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(image_progress.time, "monotonic", lambda: now[0])
    for terminal in (True, False):
        monkeypatch.setattr(image_progress.sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        progress = image_progress.ImageProgress(quiet=False)
        for done in range(0, 101, 10):
            progress(done, 100)
            now[0] += 3
        text = capsys.readouterr().err
        assert text.count("\n") == (1 if terminal else 4) and text.count("\r") == (10 if terminal else 0)
        assert "100 of 100 images" in text and "s left" in text
    quiet = image_progress.ImageProgress(quiet=True)
    for done in range(0, 101, 10):
        quiet(done, 100)
        now[0] += 30
    assert capsys.readouterr().err == ""


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
    dataset["data_prefix"] = dict(img=str(data / "images"))
    inner = dict(datasets=[dataset]) if wrapper["type"] == "ConcatDataset" else dict(dataset=dataset)
    cfg.train_dataloader.dataset = dict(wrapper, **inner)
    with pytest.raises(DataError, match="train_dataloader have"):
        before_training(cfg, lambda line: None)


@pytest.mark.parametrize(
    "change, said",
    [
        (without_crowds, "annotation 1: expected iscrowd 0 or 1"),
        (from_zero, "annotation 0: expected an id other than 0"),
    ],
)
def test_what_the_evaluation_trips_over_ends_it_for_data_to_validate_on(config, data, tmp_path, change, said):
    good, bad = data / "annotations.json", changed(data, tmp_path, change)
    images = data / "images"
    cfg, _ = config_of(config, tmp_path, (good, images), (bad, images))
    with pytest.raises(DataError, match=f"val_dataloader have .*{said}"):
        before_training(cfg, lambda line: None)
    cfg, _ = config_of(config, tmp_path, (bad, images), (good, images))
    before_training(cfg, lambda line: None)


@pytest.mark.parametrize(
    "change, said",
    [
        (without_crowds, "an annotation without `iscrowd`.*--fix OUT.json` mends it; or pass --no-check-data"),
        (from_zero, "AP is too low; .*annotation 0"),
        (lambda content: content["annotations"].insert(1, None), r"annotations\[1\]: expected an entry with an id"),
        (lambda content: content["annotations"][0].update(bbox=None), "annotation 1: expected a bbox"),
        (lambda content: content["annotations"][0].update(ignore=1), None),
        (lambda content: content["annotations"][0]["bbox"].__setitem__(0, 200), None),
        (lambda content: content["annotations"][0].update(category_id=77), None),
        (lambda content: content.update(annotations=[]), None),
    ],
)
def test_what_an_evaluation_alone_trips_over(config, data, tmp_path, change, said):
    good, bad = data / "annotations.json", changed(data, tmp_path, change)
    cfg, _ = config_of(config, tmp_path, (good, data / "images"), (bad, data / "images"))
    if said is None:  # left out of the evaluation, which goes on
        before_evaluation(cfg, lambda line: None)
        return
    with pytest.raises(DataError, match=f"The data of test_dataloader cannot be evaluated on: .*{said}"):
        before_evaluation(cfg, lambda line: None)
    cfg.test_evaluator.format_only = True
    before_evaluation(cfg, lambda line: None)


@pytest.mark.parametrize(
    "change, said",
    [
        (without_crowds, "The data of val_evaluator have 6 errors"),
        (lambda content: content["images"][3].update(id=77), "The data of val_evaluator have 1 error"),
        (
            lambda content: content.update(
                images=content["images"][:3],
                annotations=[entry for entry in content["annotations"] if entry["image_id"] < 3],
            ),
            "lacks 1 image of .*annotations.json, such as image 3; set val_evaluator.ann_file",
        ),
    ],
)
def test_an_evaluator_with_a_file_of_its_own(config, data, tmp_path, change, said):
    cfg, _ = for_training(TrainOptions(config, tmp_path / "work"))
    cfg.val_evaluator.ann_file = str(changed(data, tmp_path, change))
    with pytest.raises(DataError, match=said):
        before_training(cfg, lambda line: None)


def test_images_are_loaded_before_a_training(config, data, tmp_path, monkeypatch):
    images = tmp_path / "images"
    images.mkdir()
    for file in (data / "images").iterdir():
        (images / file.name).write_bytes(file.read_bytes())
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:-30])
    good = data / "annotations.json"
    cfg, _ = config_of(config, tmp_path, (good, images), (good, data / "images"))
    with pytest.raises(DataError, match="image 1: the PNG file ends too early"):
        before_training(cfg, lambda line: None)
    (images / "1.png").write_bytes((images / "0.png").read_bytes())
    said = []
    monkeypatch.setattr(check_data_module, "_SAMPLE", check_data_module.Sample(few=2, number=2))
    before_training(cfg, said.append)
    assert said[0].startswith("train_dataloader: 2 of 4 images were loaded; `ddq-train check-data ")


def test_a_folder_of_images_that_is_not_there(config, data, tmp_path):
    good = data / "annotations.json"
    cfg, _ = config_of(config, tmp_path, (good, tmp_path / "gone"), (good, data / "images"))
    with pytest.raises(DataError, match="The image folder .*gone of train_dataloader is not there"):
        before_training(cfg, lambda line: None)


def test_validation_data_alone(config, data, tmp_path):
    result = run(config, "--work-dir", tmp_path / "w", "--val-data", data / "annotations.json", data / "images")
    assert result.exit_code == 2 and "--val-data goes with --data" in result.stderr
