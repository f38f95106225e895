"""Final detections pair one to one by box and label, whatever their order."""

import pytest
import torch

from parity.comparing.detections import Detections, match_detections, matched_images
from parity.comparing.pairing import LEGACY, NEW

from .synthetic import INF, NAN, Rec, write_trace


def boxes(count, seed=0):
    """Return boxes of 10 by 10 that lie apart by 20."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.arange(count)[:, None] * 20.0 + torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 10.0], 1)


def found(bboxes, scores, labels):
    return Detections(bboxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


FIVE = found(boxes(5), [0.9, 0.8, 0.7, 0.6, 0.5], [1, 2, 1, 1, 3])
NONE = found(torch.empty(0, 4), [], [])


def taken(detections, rows):
    rows = torch.tensor(rows, dtype=torch.int64)
    return Detections(detections.bboxes[rows], detections.scores[rows], detections.labels[rows])


def left(match, side):
    return [(d.row, d.label, pytest.approx(d.score)) for d in match.unmatched[side]]


def test_equal_detections_match_in_place():
    match = match_detections(3, FIVE, FIVE)
    assert match.image == 3 and match.counts == {LEGACY: 5, NEW: 5}
    assert match.rows == tuple((i, i) for i in range(5))
    assert (match.worst_iou, match.score_gap, match.moved) == (1.0, 0.0, 0)
    assert match.unmatched == {LEGACY: (), NEW: ()}


@pytest.mark.parametrize(("order", "moved"), [([1, 0, 2, 3, 4], 2), ([4, 3, 2, 1, 0], 4), ([1, 2, 3, 4, 0], 5)])
def test_permuted_detections_all_match(order, moved):
    match = match_detections(0, FIVE, taken(FIVE, order))
    assert sorted(match.rows) == sorted((row, place) for place, row in enumerate(order))
    assert (match.worst_iou, match.score_gap, match.moved) == (1.0, 0.0, moved)


@pytest.mark.parametrize("dropped", range(5))
def test_dropped_detection_alone_is_left_and_the_rest_is_not_moved(dropped):
    kept = [row for row in range(5) if row != dropped]
    match = match_detections(0, FIVE, taken(FIVE, kept))
    assert match.counts == {LEGACY: 5, NEW: 4} and len(match.rows) == 4 and match.moved == 0
    scores, labels = FIVE.scores.tolist(), FIVE.labels.tolist()
    assert left(match, LEGACY) == [(dropped, labels[dropped], scores[dropped])] and left(match, NEW) == []
    turned = match_detections(0, taken(FIVE, kept), FIVE)
    assert left(turned, NEW) == left(match, LEGACY) and left(turned, LEGACY) == []


def test_shifted_box_matches_and_is_the_worst():
    moved = FIVE.bboxes.clone()
    moved[2] += torch.tensor([1.0, 0.0, 1.0, 0.0])  # 90 of 110 are in common
    match = match_detections(0, FIVE, Detections(moved, FIVE.scores, FIVE.labels))
    assert len(match.rows) == 5 and match.worst_iou == pytest.approx(90 / 110)


@pytest.mark.parametrize(("shift", "matched"), [(3.3, 5), (3.4, 4), (15.0, 4)])
def test_box_that_overlaps_by_less_than_half_is_another_detection(shift, matched):
    moved = FIVE.bboxes.clone()
    moved[4] += torch.tensor([shift, 0.0, shift, 0.0])
    match = match_detections(0, FIVE, Detections(moved, FIVE.scores, FIVE.labels))
    assert len(match.rows) == matched
    assert left(match, LEGACY) == left(match, NEW) == ([] if matched == 5 else [(4, 3, 0.5)])


def test_other_label_is_another_detection_however_equal_the_box():
    labels = FIVE.labels.clone()
    labels[1] = 7
    match = match_detections(0, FIVE, Detections(FIVE.bboxes, FIVE.scores, labels))
    assert len(match.rows) == 4 and left(match, LEGACY) == [(1, 2, 0.8)] and left(match, NEW) == [(1, 7, 0.8)]


def test_one_box_with_two_labels_pairs_by_label():
    same = torch.cat([boxes(1), boxes(1)])
    match = match_detections(0, found(same, [0.9, 0.8], [1, 2]), found(same, [0.8, 0.9], [2, 1]))
    assert match.rows == ((0, 1), (1, 0)) and match.score_gap == 0.0


def test_duplicated_detection_is_left_on_the_side_that_has_more():
    match = match_detections(0, FIVE, taken(FIVE, [0, 0, 1, 2, 3, 4]))
    assert len(match.rows) == 5 and match.worst_iou == 1.0
    assert len(match.unmatched[NEW]) == 1 and match.unmatched[NEW][0].row in (0, 1) and left(match, LEGACY) == []


def test_equal_boxes_pair_by_score():
    same = boxes(1).expand(3, 4)
    one, two = found(same, [0.9, 0.5, 0.1], [1, 1, 1]), found(same, [0.1, 0.9, 0.5], [1, 1, 1])
    match = match_detections(0, one, two)
    assert match.rows == ((0, 1), (1, 2), (2, 0)) and match.score_gap == 0.0


def test_overlap_outweighs_any_score():
    near = boxes(1)
    both = torch.cat([near, near + 1.0])
    match = match_detections(0, found(both, [0.9, 0.1], [1, 1]), found(both, [0.1, 0.9], [1, 1]))
    assert match.rows == ((0, 0), (1, 1)) and match.score_gap == pytest.approx(0.8)


def test_pairs_are_chosen_for_the_image_as_a_whole():
    # the first legacy box would rather have the one that alone is near enough to the second
    legacy = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0]])
    new = torch.tensor([[1.0, 0.0, 11.0, 10.0], [-2.0, 0.0, 8.0, 10.0]])
    match = match_detections(0, found(legacy, [0.9, 0.8], [1, 1]), found(new, [0.9, 0.8], [1, 1]))
    assert match.rows == ((0, 1), (1, 0))


@pytest.mark.parametrize(
    ("legacy", "new", "counts"), [(NONE, NONE, (0, 0)), (NONE, FIVE, (0, 5)), (FIVE, NONE, (5, 0))], ids=str
)
def test_images_without_detections(legacy, new, counts):
    match = match_detections(0, legacy, new)
    assert match.rows == () and (match.worst_iou, match.score_gap, match.moved) == (1.0, 0.0, 0)
    assert (len(match.unmatched[LEGACY]), len(match.unmatched[NEW])) == counts


def test_largest_score_difference_is_that_of_a_pair():
    match = match_detections(0, FIVE, found(boxes(5), [0.9, 0.8, 0.25, 0.6, 0.5], [1, 2, 1, 1, 3]))
    assert match.score_gap == pytest.approx(0.45)


def test_box_without_area_matches_its_equal():
    flat = torch.tensor([[5.0, 5.0, 5.0, 9.0], [7.0, 7.0, 7.0, 7.0]])
    match = match_detections(0, found(flat, [0.9, 0.8], [1, 1]), found(flat, [0.9, 0.8], [1, 1]))
    assert match.rows == ((0, 0), (1, 1)) and match.worst_iou == 1.0


@pytest.mark.parametrize(("shift", "matched"), [(1e-5, True), (0.1, False)], ids=str)
def test_boxes_without_area_match_but_for_rounding(shift, matched):
    flat = torch.tensor([[5.0, 5.0, 5.0, 90.0], [7.0, 7.0, 7.0, 7.0]])
    match = match_detections(0, found(flat, [0.9, 0.8], [1, 1]), found(flat + shift, [0.9, 0.8], [1, 1]))
    assert match.rows == (((0, 0), (1, 1)) if matched else ())


def test_box_that_lost_its_area_matches_nothing():
    one, flat = torch.tensor([[5.0, 5.0, 9.0, 90.0]]), torch.tensor([[5.0, 5.0, 5.0, 90.0]])
    assert match_detections(0, found(one, [0.9], [1]), found(flat, [0.9], [1])).rows == ()


@pytest.mark.parametrize(
    ("legacy", "new", "gap"),
    [(NAN, NAN, 0.0), (NAN, 0.5, INF), (0.5, NAN, INF), (INF, INF, 0.0), (INF, 0.5, INF)],
    ids=str,
)
def test_score_that_is_no_number(legacy, new, gap):
    match = match_detections(0, found(boxes(1), [legacy], [1]), found(boxes(1), [new], [1]))
    assert match.rows == ((0, 0),) and match.score_gap == gap


def test_box_that_is_no_number_matches_nothing():
    broken = boxes(2)
    broken[1] = NAN
    match = match_detections(0, found(boxes(2), [0.9, 0.8], [1, 1]), found(broken, [0.9, 0.8], [1, 1]))
    assert match.rows == ((0, 0),) and left(match, NEW) == [(1, 1, 0.8)]


@pytest.mark.parametrize(
    ("bboxes", "scores", "labels"),
    [
        (torch.zeros(2, 5), torch.zeros(2), torch.zeros(2)),
        (torch.zeros(2, 4), torch.zeros(3), torch.zeros(2)),
        (torch.zeros(2, 4), torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2)),
        (torch.zeros(4), torch.tensor(0.5), torch.tensor(1)),
    ],
    ids=str,
)
def test_shapes_that_do_not_belong_together_are_refused(bboxes, scores, labels):
    with pytest.raises(ValueError, match="expected"):
        Detections(bboxes, scores, labels)


def result(image, bboxes, scores, labels):
    values = dict(bboxes=bboxes, scores=torch.tensor(scores), labels=torch.tensor(labels, dtype=torch.int64))
    return [Rec("tap", "result", value, slot, image, "predict") for slot, value in values.items()]


def test_images_of_two_traces_pair_by_call(tmp_path):
    first, second = (boxes(2), [0.9, 0.8], [1, 2]), (boxes(1), [0.5], [1])
    legacy = write_trace(tmp_path / "legacy", *result(0, *first), *result(1, *second))
    new = write_trace(tmp_path / "new", *result(1, *first), *result(0, *second))
    images = matched_images(legacy, new)
    assert [(i.image, i.counts[LEGACY], i.counts[NEW]) for i in images] == [(0, 2, 1), (1, 1, 2)]


def test_results_of_another_kind_are_not_matched(tmp_path):
    legacy = write_trace(tmp_path / "legacy", *result(0, boxes(1), [0.5], [1]), Rec("tap", "result", 1.0, "mask", 1))
    for number, other in enumerate(
        [
            [Rec("tap", "result", torch.zeros(1, 4), "bboxes", 0, "predict")],
            result(0, boxes(1), [0.5, 0.5], [1]),
            result(1, boxes(1), [0.5], [1]),
            [],
        ]
    ):
        assert matched_images(legacy, write_trace(tmp_path / f"new{number}", *other)) == ()
