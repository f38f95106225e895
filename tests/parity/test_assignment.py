"""Which object each box is given by thresholds of overlaps: mmdet's own assigner keeps the rule, other ones break it."""

import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner

from legacy_adapters.bases.operators import assignments
from parity.decisions.assignment import Assignment
from parity.decisions.kinds import rule_of

RULE = Assignment()
SETTINGS = {
    "retinanet": dict(pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0),
    "rpn": dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
    "rcnn": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    "ssd": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False),
    "range": dict(pos_iou_thr=0.5, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.2),
}
(TAP,) = assignments(__import__(MaxIoUAssigner.__module__, fromlist=["MaxIoUAssigner"]))


def overlaps_of(seed, dtype=torch.float32):
    """Return overlaps [4, 60] of which many are equal, some are below none and one box is ignored."""
    generator = torch.Generator().manual_seed(seed)
    overlaps = torch.rand(4, 60, generator=generator, dtype=torch.float64)
    overlaps[torch.rand(4, 60, generator=generator) < 0.3] = 0.0
    overlaps[:, 10:20] *= 0.3
    overlaps[1] *= 0.19
    overlaps[1, 10:20] = 0.2  # a small object: all boxes around it overlap it as much
    overlaps[:, 3] = -1.0
    return overlaps.to(dtype)


def assigned(overlaps, settings):
    """Return what the assigner gives the boxes, and what the decision rests on."""
    assigner = MaxIoUAssigner(**settings)
    labels = torch.arange(len(overlaps))
    result = assigner.assign_wrt_overlaps(overlaps, labels)
    basis = {name: torch.as_tensor(number) for name, number in TAP.basis(assigner, overlaps, labels).items()}
    return TAP.read(result), basis


def margin(decision, basis, error=0.0):
    return RULE.margin(decision, basis, dict.fromkeys(basis, error))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("seed", range(5))
def test_the_assigner_keeps_the_rule_on_its_own_overlaps(settings, seed):
    decision, basis = assigned(overlaps_of(seed), settings)
    assert rule_of(basis).__class__ is Assignment
    assert margin(decision, basis).value == 0.0
    assert {one.name for one in RULE.alternatives(decision, basis)} >= {"threshold"}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("seed", range(5))
def test_what_rounding_assigns_otherwise_is_a_tie_within_its_error(settings, seed):
    overlaps = overlaps_of(seed, torch.float64)
    noise = 1e-7 * torch.rand(overlaps.shape, generator=torch.Generator().manual_seed(seed + 9), dtype=torch.float64)
    decision, _ = assigned(overlaps + noise, settings)
    own, basis = assigned(overlaps, settings)
    assert margin(decision, basis, 1e-7).is_tie
    if basis["all_best"] and not torch.equal(decision["gt_inds"], own["gt_inds"]):
        assert not margin(decision, basis).is_tie


def changed(**changes):
    return lambda overlaps, settings: assigned(overlaps, {**settings, **changes})[0]


def altered(change):
    def give(overlaps, settings):
        given = assigned(overlaps, settings)[0]["gt_inds"].clone()
        return {"gt_inds": change(given)}

    return give


FAULTS = {
    "positive threshold": changed(pos_iou_thr=0.6),
    "negative threshold": changed(neg_iou_thr=0.3),
    "no best boxes": changed(match_low_quality=False),
    "one best box": changed(gt_max_assign_all=False),
    "least of best boxes": changed(min_pos_iou=0.9),
    "object off by one": altered(lambda given: torch.where(given > 0, given % 4 + 1, given)),
    "none ignored": altered(lambda given: given.clamp(min=0)),
    "all negative": altered(torch.zeros_like),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_an_assigner_with_an_error_breaks_the_rule(fault, seed):
    overlaps, settings = overlaps_of(seed), SETTINGS["retinanet"]
    right, basis = assigned(overlaps, settings)
    wrong = FAULTS[fault](overlaps, settings)
    assert not torch.equal(wrong["gt_inds"], right["gt_inds"])
    assert not margin(wrong, basis).is_tie
    if fault != "one best box":  # of equal boxes rounding may choose any, so that this is seen on its own overlaps only
        assert not margin(wrong, basis, 1e-6).is_tie


def test_what_is_no_assignment_of_these_boxes_is_told():
    decision, basis = assigned(overlaps_of(0), SETTINGS["rpn"])
    for given, says in ((decision["gt_inds"][:9], "9 boxes"), (decision["gt_inds"] + 9, "none of the 4")):
        broken = margin({"gt_inds": given}, basis, 1.0)
        assert broken.value == float("inf") and says in broken.witness


def test_without_objects_all_boxes_are_negative():
    decision, basis = assigned(torch.zeros(0, 5), SETTINGS["rpn"])
    assert margin(decision, basis).is_tie and RULE.alternatives(decision, basis) == []
    assert not margin({"gt_inds": decision["gt_inds"] + 1 - 2}, basis).is_tie


def test_a_forced_assignment_is_what_the_assigner_returns():
    overlaps, labels = overlaps_of(0), torch.tensor([5, 6, 7, 8])
    assigner = MaxIoUAssigner(**SETTINGS["rpn"])
    own = assigner.assign_wrt_overlaps(overlaps, labels)
    forced = TAP.write(TAP.read(own), assigner, overlaps, labels)
    for name in ("num_gts", "gt_inds", "max_overlaps", "labels"):
        assert torch.equal(torch.as_tensor(getattr(forced, name)), torch.as_tensor(getattr(own, name)))
    assert TAP.write({"gt_inds": own.gt_inds[:5]}, assigner, overlaps, labels) is None


@pytest.mark.parametrize("slot", ["positive", "all_best"])
def test_an_assignment_without_its_settings_cannot_be_tried(slot):
    decision, basis = assigned(overlaps_of(0), SETTINGS["rpn"])
    broken = margin(decision, {name: numbers for name, numbers in basis.items() if name != slot}, 1.0)
    assert (broken.value, broken.witness) == (float("inf"), "is not an assignment by overlaps")
