"""Comparison of what two sides found: files written by hand, live runs against mmdet 3.3.0 and the official code."""

import io
import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from legacy_adapters.bases.detection import DetectionAdapter
from legacy_adapters.launch import SideError
from legacy_adapters.tasks import detecting
from parity.comparing.pairing import LEGACY, NEW
from parity.evaluation.coco import load
from parity.evaluation.evaluation import Bounds, ap_gap, judge
from parity.evaluation.plot import draw
from parity.evaluation.report import print_verdict
from parity.verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from tests.models import weights_of

from .image_set import write_image_set

REPO = os.environ.get("DDQ_LEGACY_REPO", "")
FIXED = Bounds(exact=False, score=1e-3, box=0.5, ap=1e-3)
PROVENANCE = dict(threads=1, cpu_capability="AVX2", device="cpu", torch="2.13.0")
#: Boxes, scores and labels of every image.
BOXES = [[10.0, 10.0, 40.0, 50.0], [12.0, 30.0, 60.0, 90.0], [0.0, 0.0, 20.0, 20.0]]
SCORES, LABELS = [0.9, 0.6, 0.3], [0, 1, 2]


@pytest.fixture
def images(tmp_path):
    return load(*write_image_set(tmp_path / "set"), None)


@pytest.fixture
def judged(tmp_path, images):
    """Return a function that judges two sides; a change, of the new one or of both, is (image, field, value)."""

    def call(changes=(), bounds=None, provenance=None, limit=None, both=()):
        files = {}
        for side in (LEGACY, NEW):
            told = {**PROVENANCE, **(provenance or {} if side == NEW else {})}
            rows = [dict(id=image.id, input=dict(shape=[1, 3, 64, 96], dtype="torch.float32", digest="0", mean=0.0),
                         meta={}, bboxes=BOXES, scores=SCORES, labels=LABELS) for image in images.images]  # fmt: skip
            for place, name, value in [*both, *(changes if side == NEW else ())]:
                rows[place] = {**rows[place], name: value}
            lines = [dict(provenance=told), *rows, dict(images=len(rows))]
            files[side] = tmp_path / f"{side}.jsonl"
            files[side].write_text("".join(json.dumps(line) + "\n" for line in lines[:limit]))
        return judge(files, images, (1, 3, 5), bounds or Bounds())

    return call


def moved(by):
    return [[value + by for value in box] for box in BOXES]


def test_equal_detections_match(judged):
    verdict = judged()
    assert verdict.outcome == MATCH and verdict.exit_code == 0
    assert all(result.identical and len(result.match.rows) == 3 for result in verdict.images)
    assert verdict.aps[LEGACY] == verdict.aps[NEW] and verdict.aps[NEW]["AP"] is not None


@pytest.mark.parametrize(
    ("name", "value", "within"),
    [
        ("scores", [0.9005, 0.6, 0.3], True),
        ("scores", [0.902, 0.6, 0.3], False),
        ("bboxes", moved(0.25), True),
        ("bboxes", moved(0.75), False),
        ("scores", [math.nan, 0.6, 0.3], False),
        ("labels", [1, 1, 2], False),
        ("bboxes", [[10.0, 10.0, 40.0, math.nan], *BOXES[1:]], False),
    ],
)
def test_a_difference_is_a_mismatch_unless_bounds_allow_it(judged, name, value, within):
    changes = [(2, name, value)]
    verdict = judged(changes)
    assert verdict.outcome == MISMATCH and verdict.reasons[0].startswith("1 of 4 images differs")
    assert "image 30 (003.png)" in verdict.reasons[0] and "the same inputs" in verdict.reasons[1]
    assert [result.accepted for result in verdict.images] == [True, True, False, True]
    loose = Bounds(exact=False, score=1e-3, box=0.5, ap=1.0)
    assert judged(changes, loose).outcome == (MATCH if within else MISMATCH)


def test_another_order_of_equal_detections_is_no_bit_identity(judged):
    changes = [(1, "bboxes", BOXES[::-1]), (1, "scores", SCORES[::-1]), (1, "labels", LABELS[::-1])]
    assert judged(changes).outcome == MISMATCH and judged(changes, FIXED).outcome == MATCH


def without(row):
    return [(0, name, values[:row] + values[row + 1 :]) for name, values in
            (("bboxes", BOXES), ("scores", SCORES), ("labels", LABELS))]  # fmt: skip


def test_a_lost_detection_is_a_mismatch(judged):
    verdict = judged(without(2), Bounds(exact=False, score=1e-3, box=0.5, ap=1.0))
    assert verdict.outcome == MISMATCH and "1 detection without a partner" in verdict.reasons[0]
    assert [(one.row, one.score) for one in verdict.images[0].lone[LEGACY]] == [(2, 0.3)]


def test_only_what_fell_off_the_end_of_a_full_list_may_be_alone(judged):
    other = [(0, "bboxes", [*BOXES[:2], [70.0, 70.0, 90.0, 90.0]])]
    loose = Bounds(exact=False, score=1e-3, box=0.5, ap=1.0)
    at_cut = judged([*other, (0, "scores", [0.9, 0.6, 0.3005])], loose)
    assert at_cut.outcome == MATCH and at_cut.images[0].at_cut == 2 and not any(at_cut.images[0].lone.values())
    above = judged([*other, (0, "scores", [0.9, 0.6, 0.31])], loose)
    assert above.outcome == MISMATCH and [len(side) for side in above.images[0].lone.values()] == [0, 1]


def test_other_inputs_are_told(judged):
    other = dict(shape=[1, 3, 64, 97], dtype="torch.float32", digest="1", mean=0.0)
    verdict = judged([(1, "input", other), (1, "bboxes", moved(1.0))])
    assert "other inputs in 1 image, first image 20: legacy 64x96, new 64x97" in verdict.reasons[1]
    quiet = judged([(1, "input", other)])
    assert quiet.outcome == MATCH and any("without an effect" in note for note in quiet.notes)


def test_an_ap_that_differs_counts_for_itself(judged, images):
    boxes = {image.id: [o["bbox"] for o in images.content["annotations"] if o["image_id"] == image.id] for image in
             images.images}  # fmt: skip
    corners = [[left, top, left + w, top + h] for left, top, w, h in boxes[10]]
    near = [[left, top, right, bottom + 0.4] for left, top, right, bottom in corners]
    labels = [(1 + place) % 3 for place in range(3)]
    changes = [(0, "bboxes", corners), (0, "labels", labels), (0, "scores", [0.99] * 3)]
    base, other = judged(changes), judged([*changes, (0, "bboxes", near)])
    assert base.aps[NEW]["AP"] > base.aps[LEGACY]["AP"] and other.outcome == MISMATCH
    assert base.outcome == MISMATCH and any(reason.startswith("An AP differs by 0.") for reason in base.reasons)


def test_an_ap_alone_may_be_the_mismatch(judged, images):
    """Scores of a right and a wrong detection change places, within a bound of scores that is too wide."""
    left, top, w, h = next(o["bbox"] for o in images.content["annotations"] if o["image_id"] == 10)
    both = [(0, "bboxes", [[left, top, left + w, top + h], *BOXES[1:]]), (0, "labels", [1, 1, 2])]
    wide = dict(exact=False, score=1.0, box=0.5)
    changes = [(0, "scores", [0.5, 0.6, 0.3])]
    verdict = judged(changes, Bounds(**wide, ap=1e-3), both=both)
    assert verdict.outcome == MISMATCH and all(result.accepted for result in verdict.images)
    assert len(verdict.reasons) == 1 and verdict.reasons[0].startswith("An AP differs by 0.")
    assert judged(changes, Bounds(**wide, ap=1.0), both=both).outcome == MATCH


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_equal_boxes_that_are_not_finite_are_equal(judged, value):
    both = [(0, "bboxes", [[10.0, 10.0, 40.0, value], *BOXES[1:]])]
    for bounds in (Bounds(), FIXED):
        verdict = judged(both=both, bounds=bounds)
        assert verdict.outcome == MATCH and verdict.images[0].box_gap == 0.0


def test_nothing_found_proves_nothing(judged):
    empty = [(place, name, []) for place in range(4) for name in ("bboxes", "scores", "labels")]
    assert judged(empty).outcome == MISMATCH
    verdict = judged(both=empty)
    assert verdict.outcome == INCOMPARABLE and "Neither side detected anything" in verdict.reasons[0]


def test_bits_of_other_conditions_are_not_comparable(judged):
    verdict = judged(provenance=dict(torch="1.9"))
    assert verdict.outcome == INCOMPARABLE and "torch is 2.13.0 on the legacy side and 1.9" in verdict.reasons[0]
    assert judged(provenance=dict(torch="1.9"), bounds=FIXED).outcome == MATCH


@pytest.mark.parametrize(("limit", "says"), [(-1, "did not write all"), (-2, "wrote nothing of image 40")])
def test_a_file_that_is_not_whole_is_no_result(judged, limit, says):
    with pytest.raises(SideError, match=says):
        judged(limit=limit)


def test_worker_keeps_every_bit_and_names_the_image_it_cannot_process(tmp_path):
    found = dict(bboxes=torch.rand(5, 4) * 100, scores=torch.rand(5), labels=torch.arange(5))

    def image_detector(model, options):
        def detect(path, number):
            if number == 8:
                raise OSError("broken file")
            return dict(input=torch.ones(1, 3, 4, 4), meta=dict(img_shape=[4, 4]), **found)

        return detect

    (tmp_path / "images.json").write_text(json.dumps([dict(id=7, file="a.png"), dict(id=8, file="b.png")]))
    job = SimpleNamespace(adapter="adapter.py", options={}, seed=0, images=str(tmp_path / "images.json"),
                          detections=str(tmp_path / "out"))  # fmt: skip
    model = torch.nn.Identity()
    with pytest.raises(RuntimeError, match=r"image 8 \(b.png\): broken file"):
        adapter = DetectionAdapter()
        adapter.image_detector = image_detector
        detecting.run(job, adapter, model, {})
    row = json.loads((tmp_path / "out").read_text().splitlines()[1])
    for name, value in found.items():
        assert torch.equal(torch.tensor(row[name], dtype=value.dtype), value)


def test_drawing_has_both_sides_and_marks_what_is_alone(judged, images, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from parity.comparing.detections import Detections

    verdict = judged(without(2), FIXED)
    found = {side: Detections(torch.tensor(BOXES)[:n], torch.tensor(SCORES)[:n], torch.tensor(LABELS)[:n])
             for side, n in ((LEGACY, 3), (NEW, 2))}  # fmt: skip
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: (figures.append(figure), save(figure, file)))
    draw(verdict.images[0], found, ["a", "b", "c"], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    legacy, new = figures[0].axes
    assert [len(legacy.patches), len(new.patches)] == [3, 2]
    assert legacy.get_title() == "legacy: 3 detections, 1 without a partner" and new.get_title() == "new: 2 detections"
    assert legacy.patches[-1].get_edgecolor() != legacy.patches[0].get_edgecolor()


def test_a_label_without_a_place_and_one_of_a_box_without_numbers_are_left_out(judged, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from parity.comparing.detections import Detections

    boxes, scores = torch.tensor([[0.0, 0.0, 127.0, 95.0]] * 12), torch.linspace(1, 0.5, 12)
    labels = torch.arange(12) // 8
    broken = torch.cat([boxes[:1], torch.full((1, 4), math.nan)])
    found = {LEGACY: Detections(boxes, scores, labels), NEW: Detections(broken, scores[:2], labels[:2])}
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file: figures.append(figure))
    draw(judged().images[0], found, ["a long name of a class", "x" * 200], tmp_path / "x.png")
    legacy, new = figures[0].axes
    assert len(legacy.patches) == 12 and len(legacy.texts) == 8  # the other names are wider than the picture
    assert all(text.get_text().startswith("a long name") for text in legacy.texts)
    assert [text.get_text() for text in new.texts] == ["a long name of a class 1.00"] and len(new.patches) == 2


def test_a_long_table_of_images_is_cut_and_another_input_of_the_same_size_is_marked(judged):
    other = dict(shape=[1, 3, 64, 96], dtype="torch.float32", digest="1", mean=0.0)
    verdict = judged([(1, "input", other)])
    console = Console(file=io.StringIO(), width=100)
    print_verdict(replace(verdict, images=verdict.images * 3), console, quiet=False)
    lines = console.file.getvalue().splitlines()
    assert "and 2 more images with smaller differences" in lines
    assert {line.split()[0]: "64x96, other" in line for line in lines if ".png" in line or ".jpg" in line} == {
        "001.png": False, "002.jpg": True, "003.png": False, "004.jpg": False,
    }  # fmt: skip


def test_images_without_objects_have_no_ap(judged, images):
    images.content["annotations"].clear()
    verdict = judged()
    assert verdict.outcome == MATCH and verdict.aps == {LEGACY: None, NEW: None}
    assert "The images have no objects, so there is no AP." in verdict.notes


@pytest.mark.parametrize(
    ("legacy", "new", "gap"),
    [
        (None, None, 0.0),
        (None, dict(AP=0.5), math.inf),
        (dict(AP=0.5, APs=None), dict(AP=0.25, APs=None), 0.25),
        (dict(AP=0.5, APs=0.5), dict(AP=0.5, APs=None), math.inf),
    ],
)
def test_gap_of_aps_is_infinite_where_one_side_alone_has_one(legacy, new, gap):
    assert ap_gap({LEGACY: legacy, NEW: new}) == gap


@pytest.fixture
def tiny_eval(parity, tmp_path):
    ann, folder = write_image_set(tmp_path / "set")

    def call(*arguments, family="mmdet_ddq"):
        return parity("eval", "--ann", ann, "--images", folder, "--family", family, "--variant", "tiny_4scale",
                      "--threads", "1", *arguments)  # fmt: skip

    return call


def test_live_with_mmdet(tiny_eval, tmp_path):
    weights = weights_of("tiny_4scale", 3, side="legacy")
    meta = {"dataset_meta": {"classes": ["class 2", "class 0", "class 1"]}}
    torch.save({"meta": meta, "state_dict": weights}, tmp_path / "trained.pth")
    result = tiny_eval("--scale", "96x128", "--weights", tmp_path / "trained.pth", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["verdict"] == "MATCH" and json.loads((tmp_path / "out" / "report.json").read_text()) == report
    shapes = [image["input_shapes"] for image in report["images"]]
    # each image fits into 96x128 or 128x96, its longer side rounded to the nearest pixel, and is not padded
    assert [shape["new"][-2:] for shape in shapes] == [[96, 128], [128, 88], [41, 128], [96, 96]]
    assert all(image["identical"] and image["same_input"] for image in report["images"])
    assert all(image["detections"] == {"legacy": 50, "new": 50} for image in report["images"])
    assert len(list((tmp_path / "out").glob("worst-*.png"))) == 4
    options = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert options["task"]["scale"] == [128, 96] and options["images"] == [10, 20, 30, 40]
    again = tiny_eval("--out", tmp_path / "out")
    assert again.exit_code == 2 and "--force" in again.stderr


def test_live_with_another_pipeline(tiny_eval, planted):
    result = tiny_eval("--scale", "96x128", "--limit", "2", "--new-adapter", planted("other_pipeline"))
    assert result.exit_code == 1, result.output
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("MISMATCH 2 of 2 images differ") and "legacy 96x128, new 95x126" in lines[-1]
    assert max(len(line) for line in lines[:-1]) <= 80


@pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set (jshilong/DDQ, branch ddq_detr)")
def test_live_with_the_official_code(tiny_eval):
    result = tiny_eval("--legacy-repo", REPO, "--scale", "300x400", "--json", family="ddq_detr")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert all(image["identical"] and image["same_input"] for image in report["images"])
    assert report["provenance"]["legacy"]["modules"]["mmdet"]["version"] == "3.0.0rc6"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--score", "0.1"], "goes with --tolerance fixed"),
        (["--scale", "64x64,32x32"], "gives 2 sizes"),
        (["--force"], "--force needs --out"),
        (["--variant", "r50_4scale"], "has 3 categories and the model 80 classes"),
        (["--images", "/tmp"], "is not there"),
        (["--ann", "none.json"], "does not exist"),
        (["--weights", "none.pth"], "does not exist"),
        (["--legacy-repo", "/tmp"], "leave --legacy-repo out"),
    ],
)
def test_bad_input_is_one_line(tiny_eval, arguments, says):
    result = tiny_eval(*arguments, "-q")
    assert result.exit_code == 2 and says in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_checkpoint_of_other_classes_leaves_nothing_behind(tiny_eval, tmp_path):
    one_class = weights_of("tiny_1class", 3, side="legacy")
    three = weights_of("tiny_4scale", 3, side="legacy")
    meta = {"dataset_meta": {"classes": ["class 0", "class 1", "dog"]}}
    torch.save({"state_dict": one_class}, tmp_path / "one.pth")
    torch.save({"state_dict": three, "meta": meta}, tmp_path / "dog.pth")
    for name, says in (
        ("one", "one.pth has 1 class (rows of `bbox_head.cls_branches.0.weight`) and variant tiny_4scale has 3"),
        ("dog", "has no category `dog`, which is a class of the checkpoint; it has class 0, class 1, class 2"),
    ):
        result = tiny_eval("--weights", tmp_path / f"{name}.pth", "--out", tmp_path / "out")
        assert result.exit_code == 2 and says in result.stderr, result.output
        assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
