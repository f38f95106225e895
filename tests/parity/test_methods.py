"""Methods tell where a difference comes from; how code is divided into them decides nothing."""

import pytest

from parity.report.report import closing_line
from parity.report.rounding import without_effect_lines
from parity.verdict.verdict import MATCH, MISMATCH

from .synthetic import Rec, judged

OUT = Rec("module_out", "head", [1.0])


def given(slot, values=1.0, **more):
    return Rec("method_in", "head", [values], slot, **more)


def test_a_difference_that_follows_from_an_argument_is_the_callers(tmp_path):
    legacy = [given("loss.boxes"), Rec("loss", "loss_iou", 1.0), OUT]
    new = [given("loss.boxes", 2.0), Rec("loss", "loss_iou", 3.0), OUT]
    verdict = judged(tmp_path, legacy, new)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, "the detector")
    assert "calls `head.loss` (call 0 of the train phase) with another `boxes`" in verdict.divergence.message
    assert verdict.reasons == ("1 of 3 records differs.",)


def test_a_result_is_its_owners(tmp_path):
    def records(value):
        return [Rec("method_out", "head", [value], "loss_by_feat.iou", scope="neck"), Rec("loss", "iou", value), OUT]

    verdict = judged(tmp_path, records(1.0), records(2.0))
    assert verdict.divergence.where == "head"
    assert "`head.loss_by_feat` of `head`" in verdict.divergence.message


def test_a_difference_without_effect_is_told_and_no_mismatch(tmp_path):
    verdict = judged(tmp_path, [given("loss.boxes"), OUT], [given("loss.boxes", 2.0), OUT])
    assert (verdict.outcome, verdict.divergence) == (MATCH, None)
    assert without_effect_lines(verdict)[0].startswith("passed on differently between methods, without effect: 1, first:")
    assert closing_line(verdict) == "MATCH 1 of 2 records bit-identical, 1 between methods differ without effect"


@pytest.mark.parametrize("both", [True, False])
def test_a_method_of_one_side_only_is_no_alarm(tmp_path, both):
    other = [given("predict.boxes")] if both else []
    verdict = judged(tmp_path, [given("loss.boxes"), OUT], [*other, OUT])
    assert (verdict.outcome, verdict.coverage.unaccounted) == (MATCH, ())


def test_parameters_of_other_names_pair_in_their_order(tmp_path):
    legacy = [given("loss.cls_scores"), given("loss.bbox_preds"), Rec("loss", "iou", 1.0), OUT]
    new = [given("loss.scores"), given("loss.bboxes", 2.0), Rec("loss", "iou", 2.0), OUT]
    verdict = judged(tmp_path, legacy, new)
    assert len(verdict.comparisons) == 4
    assert "with another `bboxes`" in verdict.divergence.message
