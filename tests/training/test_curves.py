"""Curves of a work dir: read as mmengine writes them, resumed trainings joined, drawn into a picture."""

import json

import pytest

from ddq_port.training.output import curves


def log(work_dir, name, *entries):
    file = work_dir / name / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def step(number, loss, **more):
    return dict(step=number, iter=number, loss=loss, lr=0.1, loss_cls=loss / 2, **more)


def test_terms_and_validations(tmp_path):
    terms = {"loss_bbox": 1.0, "d0.loss_cls": 2.0, "d0.dn_loss_cls": 3.0, "enc_loss_cls": 4.0, "0_aux_loss_cls": 5.0}
    log(tmp_path, "1", step(10, 9.0, **terms), {"coco/bbox_mAP": 0.1, "step": 10}, step(20, 8.0, **terms))
    read = curves.read(tmp_path)
    assert read.training["loss"].steps == [10, 20] and read.training["loss"].values == [9.0, 8.0]
    assert read.terms == ("loss_cls", *terms)
    assert (read.validation["coco/bbox_mAP"].steps, read.validation["coco/bbox_mAP"].values) == ([10], [0.1])


def test_a_validation_that_is_logged_by_epoch_stands_behind_its_last_step(tmp_path):
    log(tmp_path, "1", step(50, 9.0), step(100, 8.0), {"coco/bbox_mAP": 0.1, "step": 1}, step(150, 7.0))
    assert curves.read(tmp_path).validation["coco/bbox_mAP"].steps == [100]


def test_a_resumed_training_counts_from_where_it_went_on(tmp_path):
    log(
        tmp_path,
        "20260101_1",
        step(1, 9.0),
        step(2, 8.0),
        {"coco/bbox_mAP": 0.1, "step": 2},
        step(3, 7.5),
        step(4, 7.4),
    )
    log(tmp_path, "20260101_2", step(3, 7.0), step(4, 6.0), {"coco/bbox_mAP": 0.2, "step": 4})
    read = curves.read(tmp_path)
    assert read.training["loss"].steps == [1, 2, 3, 4] and read.training["loss"].values == [9.0, 8.0, 7.0, 6.0]
    assert read.validation["coco/bbox_mAP"].values == [0.1, 0.2]


def test_a_run_that_was_stopped_before_its_first_step(tmp_path):
    log(tmp_path, "1", step(1, 9.0))
    log(tmp_path, "2")
    assert curves.read(tmp_path).training["loss"].values == [9.0]


def test_no_log(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a work dir of mmengine"):
        curves.read(tmp_path)


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"loss": 1, "step": null}'])
def test_a_log_that_is_none(tmp_path, line):
    file = tmp_path / "1" / "vis_data" / "scalars.json"
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"loss": 1, "step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match="Line 2 of"):
        curves.read(tmp_path)


def test_terms_are_summed_by_kind_of_query(tmp_path):
    terms = {"d0.loss_iou": 1.0, "d0.dn_loss_cls": 3.0, "dn_loss_cls": 0.5, "enc_loss_cls": 4.0}
    dense = {"0_aux_loss_cls": 5.0, "aux_enc_aux_loss_cls": 6.0}
    log(tmp_path, "1", step(1, 20.0, **terms, **dense))
    sums = {name: curve.values for name, curve in curves.grouped(curves.read(tmp_path))}
    assert sums == {
        "matching queries": [11.0],
        "denoising queries": [3.5],
        "encoder": [4.0],
        "dense queries": [11.0],
    }


def test_smoothing():
    assert curves.smooth([3.0, 1.0, 2.0]) == [3.0, 1.0, 2.0]
    long = [float(value) for value in range(100)]
    smoothed = curves.smooth(long)
    assert smoothed[0] == 0.0 and smoothed[1:4] == [0.5, 1.5, 2.5] and len(smoothed) == 100


def test_a_picture(tmp_path):
    import cv2

    entries = [entry for n in range(1, 120) for entry in [step(n, 20.0 / n, **{"d0.dn_loss_cls": 1.0})]]
    log(tmp_path, "1", *entries, {"coco/bbox_mAP": 0.4, "coco/bbox_mAP_l": -1.0, "step": 119})
    curves.draw(curves.read(tmp_path), tmp_path / "curves.png", "title")
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image.shape[:2] == (800, 1100) and len({tuple(pixel) for row in image[::4, ::4] for pixel in row}) > 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "curves.png"]


def test_a_picture_of_losses_alone(tmp_path):
    log(tmp_path, "1", step(1, 20.0))
    curves.draw(curves.read(tmp_path), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
