"""Reading of training logs: both code bases, JSON and text, work dirs, resumed and damaged ones."""

import json
from dataclasses import replace

import numpy as np
import pytest

from parity.curves.alignment import aligned
from parity.curves.logs import load, renamed
from parity.curves.runlog import EPOCHS, ITERATIONS, BadLogError

from .training_logs import TERMS, training, write_mmdet2, write_mmengine

RUN = training(0)
WRITERS = [write_mmengine, write_mmdet2]


def same(one, two, digits):
    assert one.terms.keys() == two.terms.keys() and one.aps.keys() == two.aps.keys()
    for curves, others in ((one.terms, two.terms), (one.aps, two.aps)):
        for name, curve in curves.items():
            np.testing.assert_allclose(curve.at, others[name].at)
            np.testing.assert_allclose(curve.values, others[name].values, atol=0.6 * 10**-digits)


@pytest.mark.parametrize("write", WRITERS)
def test_terms_and_aps_stand_at_their_place_in_the_training(tmp_path, write):
    log = load(write(tmp_path, RUN, interval=10))
    assert set(log.terms) == {*TERMS, "loss"} and set(log.aps) == {"bbox_mAP"}
    assert log.unit == EPOCHS and log.epoch_length == 23 and log.interval == 10
    np.testing.assert_allclose(log.terms["loss"].at[:3], [10 / 23, 20 / 23, 1 + 10 / 23])
    assert log.terms["loss_cls"].values[2] == pytest.approx(RUN.terms["loss_cls"][23:33].mean(), abs=1e-5)
    np.testing.assert_array_equal(log.aps["bbox_mAP"].at, [1, 2, 3, 4])
    np.testing.assert_allclose(log.aps["bbox_mAP"].values, RUN.aps, atol=6e-4)
    assert log.rates.values[0] == 2e-4 and log.rates.values[-1] == 2e-5


def test_all_formats_tell_the_same(tmp_path):
    logs = [load(write(tmp_path / write.__name__, RUN)) for write in WRITERS]
    texts = [load(file) for file in sorted(tmp_path.glob("*/**/*.log"))]
    assert len(texts) == 2
    for log in (logs[1], *texts):
        same(logs[0], log, digits=4)


@pytest.mark.parametrize("write", WRITERS)
def test_rounding_of_a_log_is_told_by_its_digits(tmp_path, write):
    log = load(write(tmp_path, RUN))
    assert log.aps["bbox_mAP"].step == pytest.approx(1e-3)
    assert log.terms["loss_cls"].step == pytest.approx(1e-5 if write is write_mmdet2 else 0)
    text = load(next(tmp_path.rglob("*.log")))
    assert text.terms["loss_cls"].step == pytest.approx(1e-4)


@pytest.mark.parametrize("write", WRITERS)
def test_trailing_zeros_do_not_make_rounding_coarser(tmp_path, write):
    short = training(0, epochs=2, length=5)
    short.terms["loss_iou"][:] = 0.5
    log = load(write(tmp_path, replace(short, aps=np.array([0.3, 0.48]))))
    assert log.aps["bbox_mAP"].step == pytest.approx(1e-3)
    expected = 1e-5 if write is write_mmdet2 else 0
    assert [curve.step for curve in log.terms.values()] == pytest.approx([expected] * 5)
    text = load(next(tmp_path.rglob("*.log")))
    assert [curve.step for curve in text.terms.values()] == pytest.approx([1e-4] * 5)


@pytest.mark.parametrize(
    ("write", "inner"),
    [
        (write_mmdet2, ""),
        (write_mmengine, ""),
        (write_mmengine, "20260101_000000"),
        (write_mmengine, "20260101_000000/vis_data"),
    ],
)
def test_a_work_dir_stands_for_its_log(tmp_path, write, inner):
    file = write(tmp_path, RUN)
    same(load(tmp_path / inner), load(file), digits=9)


@pytest.mark.parametrize("write", WRITERS)
def test_what_a_resumed_training_did_again_replaces_what_it_did_before(tmp_path, write):
    write(tmp_path, training(1), time="20260101_000000")
    write(tmp_path, RUN, start=3, time="20260102_000000")
    log = load(tmp_path)
    assert len(log.files) == 2 and len(log.terms["loss"]) == 4 * 4
    first, last = training(1), RUN
    assert log.terms["loss_cls"].values[7] == pytest.approx(first.terms["loss_cls"][23 + 15 : 23 + 20].mean(), abs=1e-5)
    assert log.terms["loss_cls"].values[8] == pytest.approx(last.terms["loss_cls"][46 : 46 + 5].mean(), abs=1e-5)
    expected = [*first.aps[:2], *last.aps[2:]]
    np.testing.assert_allclose(log.aps["bbox_mAP"].values, expected, atol=6e-4)
    assert log.holes() == []


def test_nothing_of_before_is_left_behind_the_start_of_a_resumed_training(tmp_path):
    write_mmengine(tmp_path, training(1), time="20260101_000000")
    write_mmengine(tmp_path, replace(RUN, aps=RUN.aps[:3]), start=3, interval=10, time="20260102_000000")
    log = load(tmp_path)
    expected = [*(epoch + n / 23 for epoch in (0, 1) for n in (5, 10, 15, 20)), 2 + 5 / 23, 2 + 10 / 23, 2 + 20 / 23]
    np.testing.assert_allclose(log.terms["loss"].at, expected)
    np.testing.assert_array_equal(log.aps["bbox_mAP"].at, [1, 2, 3])


def test_a_lost_part_is_a_hole(tmp_path):
    write_mmengine(tmp_path, RUN, start=3)
    assert load(tmp_path).holes() == [(0.0, pytest.approx(2 + 5 / 23))]


def test_epochs_of_mmengine_are_found_without_the_text_log(tmp_path):
    log = load(write_mmengine(tmp_path, RUN, text=False))
    assert log.epoch_length == 23 and log.unit == EPOCHS


def test_epochs_of_mmdet_2_are_taken_from_the_other_log(tmp_path):
    one = load(write_mmdet2(tmp_path / "a", RUN, text=False))
    assert one.epoch_length is None and one.least_length == 20
    two = load(write_mmengine(tmp_path / "b", RUN))
    (one, two), notes = aligned([one, two])
    same(one, two, digits=4)
    assert notes == []


def test_epochs_of_other_lengths_are_aligned_by_epoch_and_told(tmp_path):
    logs = [load(write_mmengine(tmp_path / str(n), training(0, length=n), interval=5)) for n in (20, 40)]
    (one, two), notes = aligned(logs)
    assert one.terms["loss"].at[3] == two.terms["loss"].at[7] == 1.0
    assert "20 in" in notes[0] and "40 in" in notes[0]


def test_a_log_of_one_epoch_without_text_counts_iterations(tmp_path):
    log = load(write_mmengine(tmp_path / "a", training(0, epochs=1), text=False))
    assert log.unit == ITERATIONS and log.terms["loss"].at[0] == 5 and log.aps["bbox_mAP"].at == [20]
    (one, two), _ = aligned([log, load(write_mmdet2(tmp_path / "b", training(0, epochs=1)))])
    np.testing.assert_array_equal(one.terms["loss"].at, two.terms["loss"].at)


def test_iteration_based_trainings(tmp_path):
    """mmengine tells 0 as the epoch of a validation then; mmcv 1.x counts iterations through and tells an epoch."""
    rows = [dict(loss=2.0 - 0.1 * i, loss_cls=1.0, iter=10 * i, step=10 * i) for i in range(1, 5)]
    rows.insert(2, {"coco/bbox_mAP": 0.1, "step": 0})
    old = [dict(mode="train", epoch=1 + i // 3, iter=10 * i, loss=2.0 - 0.1 * i, loss_cls=1.0) for i in range(1, 5)]
    old.insert(2, dict(mode="val", epoch=1, iter=500, bbox_mAP=0.1))
    for name, lines in (("scalars.json", rows), ("x.log.json", old)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in lines))
        log = load(tmp_path / name)
        assert log.unit == ITERATIONS
        np.testing.assert_array_equal(log.terms["loss"].at, [10, 20, 30, 40])
        np.testing.assert_array_equal(log.aps["bbox_mAP"].at, [20])


def test_iterations_of_an_mmengine_that_tells_them_as_steps(tmp_path):
    lines = [{"lr": 0.1, "loss": 2.0 - step / 10, "time": 0.5, "step": step} for step in (1, 2, 3)]
    lines.insert(2, {"coco/bbox_mAP": 0.25, "step": 2})
    (tmp_path / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = load(tmp_path)
    assert log.unit == ITERATIONS and log.terms["loss"].at.tolist() == [1, 2, 3]
    assert log.aps["bbox_mAP"].at.tolist() == [2] and log.aps["bbox_mAP"].values.tolist() == [0.25]


def test_iteration_based_text(tmp_path):
    lines = ["Epoch(test) [500/500]    coco/bbox_mAP: 0.9000  loss: 9.0000",
             "Iter(train) [  10/40]  lr: 1.0000e-02  loss: 1.5000", "Iter(val) [23/23]    coco/bbox_mAP: 0.1000",
             "Iter [20/40]\tlr: 1.000e-02, eta: 0:00:10, loss: nan"]  # fmt: skip
    (tmp_path / "x.log").write_text("\n".join(lines))
    log = load(tmp_path / "x.log")
    assert log.unit == ITERATIONS and log.aps["bbox_mAP"].at == [10]
    np.testing.assert_array_equal(log.terms["loss"].values, [1.5, np.nan])


def test_half_a_line_at_the_end_is_a_training_that_still_runs(tmp_path):
    file = write_mmengine(tmp_path, RUN)
    whole = load(file)
    file.write_text(file.read_text()[:-20])
    assert len(load(file).terms["loss"]) == len(whole.terms["loss"])
    file.write_text(file.read_text() + "\n{}\n")
    with pytest.raises(BadLogError, match="is not JSON"):
        load(file)


def test_an_empty_line_of_a_log_is_passed_over(tmp_path):
    file = write_mmengine(tmp_path, RUN)
    whole = load(file)
    file.write_text(file.read_text().replace("\n", "\n\n", 3))
    assert len(load(file).terms["loss"]) == len(whole.terms["loss"])


def test_a_file_that_is_too_large_for_a_log_is_refused_unread(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate((1 << 30) + 1)  # takes no room on disk
    with pytest.raises(BadLogError, match="has more than 1024 MiB, which no log of a training has"):
        load(tmp_path / "x.json")


def test_epochs_of_unknown_length_and_iterations_do_not_compare(tmp_path):
    lines = [{"lr": 0.1, "loss": 2.0 - step / 10, "time": 0.5, "step": step} for step in range(1, 40)]
    (tmp_path / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts_epochs = load(write_mmdet2(tmp_path / "b", RUN, text=False))
    with pytest.raises(BadLogError, match="counts epochs and the other log iterations; keep its text log beside it"):
        aligned([load(tmp_path / "scalars.json"), counts_epochs])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no loss"),
        ("no log at all", "holds no loss"),
        ('{"coco/bbox_mAP": 0.5, "step": 1}\n', "holds no loss"),
        ('{"iter": 1, "lr": 0.1, "step": 1}\n', "has no loss in its entries"),
        ('{"mode": "train", "epoch": 1, "iter": 5, "loss": 1}\n[1]\n{}\n', "is not a JSON object"),
        ('{"mode": "train", "epoch": 1, "loss": 1}\n', "holds no loss"),
        ("\x00\xff\x00", "holds no loss"),
    ],
)
def test_what_is_no_log_is_refused_in_one_line(tmp_path, content, says):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadLogError, match=says) as caught:
        load(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path):
    for path, says in ((tmp_path / "none", "does not exist"), (tmp_path, "holds no log")):
        with pytest.raises(BadLogError, match=says):
            load(path)


def test_two_trainings_in_one_work_dir_with_other_epochs(tmp_path):
    write_mmengine(tmp_path, RUN)
    write_mmengine(tmp_path, training(1, length=30), time="20260102_000000")
    with pytest.raises(BadLogError, match="epochs of 23 and 30 iterations"):
        load(tmp_path)


def test_terms_are_renamed_and_nothing_gets_lost(tmp_path):
    log = load(write_mmengine(tmp_path, RUN))
    changed = renamed(log, {"loss_iou": "loss_giou"})
    assert changed.terms["loss_giou"] is log.terms["loss_iou"] and "loss_iou" not in changed.terms
    swapped = renamed(log, {"loss_iou": "loss_cls", "loss_cls": "loss_iou"})
    assert swapped.terms["loss_cls"] is log.terms["loss_iou"] and len(swapped.terms) == len(log.terms)
    for names, says in (
        ({"loss_x": "y"}, "no loss term `loss_x`"),
        ({"loss_iou": "loss"}, "a loss term `loss` already"),
    ):
        with pytest.raises(BadLogError, match=says):
            renamed(log, names)


def test_entries_of_mmdet_2_need_no_learning_rate(tmp_path):
    file = write_mmdet2(tmp_path, replace(RUN, rate=0.0))
    file.write_text(file.read_text().replace('"lr": 0.0, ', ""))
    assert len(load(file).rates) == 0
