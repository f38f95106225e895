"""Taps of mmcv's NMS, for several classes at once, and of the level that a region is pooled from."""

import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

from legacy_adapters.bases import operators
from legacy_adapters.recording import taps
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.decisions.kinds import rule_of
from parity.traces.trace import Trace

BOX = [10.0, 10.0, 20.0, 20.0]
BOXES = torch.tensor([BOX, BOX, BOX, [11.0, 10.0, 20.0, 20.0], [50.0, 50.0, 60.0, 60.0]])
SCORES = torch.tensor([0.5, 0.9, 0.4, 0.8, 0.3])
LABELS = torch.tensor([0, 0, 1, 1, 1])


def watched(tmp_path, call, replay=None):
    """Return what a call gives and the trace of its taps."""
    recorder = Recorder(TraceWriter(str(tmp_path)))
    with taps.installed(operators.taps(), recorder, replay), recorder.in_phase("predict"):
        result = call()
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[], frozen=[]))
    return result, Trace.load(tmp_path)


def test_nms_of_two_classes_is_one_decision_that_follows_its_rule(tmp_path):
    (_, keep), trace = watched(tmp_path, lambda: batched_nms(BOXES, SCORES, LABELS, dict(type="nms", iou_threshold=0.5)))
    assert keep.tolist() == [1, 3, 4]  # of one class the best covers the other; boxes of two classes never do
    decision, basis = (trace.values_of("predict", kind, operators.SUPPRESSION, 0) for kind in ("tap", "basis"))
    assert decision["keep"].tolist() == [1, 3, 4] and int(basis["max_num"]) == len(BOXES)
    rule, none = rule_of(basis), dict.fromkeys(basis, 0.0)
    assert rule.margin(decision, basis, none).is_tie
    assert not rule.margin({"keep": torch.tensor([1, 3])}, basis, none).is_tie
    assert {way.name for way in rule.alternatives(decision, basis)} >= {"order", "overlap", "rival"}


def test_replayed_nms_is_what_the_caller_gets_unless_it_does_not_fit(tmp_path):
    cfg = dict(type="nms", iou_threshold=0.5)
    for keep, given in (([3, 2], [3, 2]), ([3, 7], [1, 3, 4])):
        forced = {"predict/nms/0/keep": torch.tensor(keep)}
        (_, kept), _ = watched(tmp_path / str(keep), lambda: batched_nms(BOXES, SCORES, LABELS, cfg), forced)
        assert kept.tolist() == given


@pytest.fixture
def extractor():
    layer = dict(type="RoIAlign", output_size=7, sampling_ratio=0)
    return SingleRoIExtractor(layer, out_channels=4, featmap_strides=[4, 8, 16, 32])


def test_level_of_a_region_is_a_rounding_with_limits(tmp_path, extractor):
    sides = torch.tensor([1.0, 111.0, 112.0, 113.0, 900.0])
    rois = torch.stack([torch.zeros(5), torch.zeros(5), torch.zeros(5), sides, sides], 1)
    levels, trace = watched(tmp_path, lambda: extractor.map_roi_levels(rois, 4))
    assert levels.tolist() == [0, 0, 1, 1, 3]
    decision, basis = (trace.values_of("predict", kind, operators.LEVELS, 0) for kind in ("tap", "basis"))
    rule, none = rule_of(basis), dict.fromkeys(basis, 0.0)
    assert rule.margin(decision, basis, none).is_tie
    # 112 pixels are 2 to the power of 1, and 1e-6 more
    near, far = torch.tensor([0, 0, 0, 1, 3]), torch.tensor([0, 0, 1, 2, 3])
    assert rule.margin({"levels": near}, basis, {**none, "heights": 2e-6}).is_tie
    assert not rule.margin({"levels": near}, basis, none).is_tie
    assert rule.margin({"levels": far}, basis, {**none, "heights": 0.5}).value > 0.9
    (way,) = rule.alternatives(decision, basis)
    assert way.name == "rounding" and way.where == "2 to 1" and way.gap < 2e-6


def test_replayed_levels_are_what_the_caller_gets(tmp_path, extractor):
    forced = {"predict/levels/0/levels": torch.tensor([2, 0])}
    rois = torch.tensor([[0.0, 0.0, 0.0, 9.0, 9.0]] * 2)
    assert watched(tmp_path, lambda: extractor.map_roi_levels(rois, 4), forced)[0].tolist() == [2, 0]
