"""Records that a side does not make, because it computes a module in another way, are seen in what the module gives."""

import pytest

from parity.comparing.compare import Tolerance
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.report.report import exclusion_lines
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import Rec, judged

WHY = "the product is made at once"
INSIDE = Exclusion(LEGACY, "*", "block.*.conv", "*", WHY, by="block.*")
LOOSE = Tolerance("fixed", rtol=1e-3, atol=1e-3)


def block(number, value=2.0, gradient=True):
    """Return what a block gives, and the gradient of that."""
    records = [Rec("module_out", f"block.{number}", [value])]
    return records + [Rec("out_grad", f"block.{number}", [1.0])] * gradient


def conv(number, name="conv"):
    return [Rec(kind, f"block.{number}.{name}", [3.0, float(number)]) for kind in ("module_in", "module_out", "out_grad")]


def test_what_lies_within_a_compared_module_needs_no_twin_and_no_share(tmp_path):
    legacy = [*block(0), *conv(0), *block(1), *conv(1)]  # far more than 2 % of all records
    verdict = judged(tmp_path, legacy, [*block(0), *block(1)], exclusions=(INSIDE,), on_legacy=dict(leaf_calls={"block.0.conv": 1}))
    assert verdict.outcome == MATCH, verdict.reasons
    assert len(verdict.coverage.enclosed_records) == 6
    assert exclusion_lines(verdict) == [f"6 x legacy * block.*.conv *: {WHY}; compared in their place: block.*"]


@pytest.mark.parametrize(
    "new",
    [[*block(0)], [*block(0), *block(1, gradient=False)], [*block(0), Rec("out_grad", "block.1", [1.0])]],
    ids=["module not compared", "gradient not compared", "output not compared"],
)
def test_where_the_module_around_was_not_compared_nothing_is_excluded(tmp_path, new):
    legacy = [*block(0), *conv(0), *block(1), *conv(1)]
    verdict = judged(tmp_path, legacy, new, exclusions=(INSIDE,))
    assert verdict.outcome != MATCH
    assert {item.record.name for item in verdict.coverage.unaccounted} >= {"block.1.conv"}
    assert {item.record.name for item in verdict.coverage.excluded_records} == {"block.0.conv"}


def test_a_wrong_result_is_a_mismatch_of_the_module_around(tmp_path):
    verdict = judged(tmp_path, [*block(0), *conv(0)], block(0, 2.5), exclusions=(INSIDE,), tolerance=LOOSE)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "block.0"


def test_an_output_is_not_seen_in_itself(tmp_path):
    itself = Exclusion(LEGACY, "*", "block.1", "*", WHY, by="block.*")
    verdict = judged(tmp_path, [*block(0), *block(1)], block(0), exclusions=(itself,))
    assert verdict.outcome == INCOMPARABLE and len(verdict.coverage.unaccounted) == 2


def test_a_module_elsewhere_may_be_named_and_must_exist(tmp_path):
    for by, outcome in (("block.0", MATCH), ("block.7", INCOMPARABLE)):
        lone = Exclusion(LEGACY, "*", "other", "*", WHY, by=by)
        verdict = judged(tmp_path / by, [*block(0), Rec("module_out", "other", [5.0])], block(0), exclusions=(lone,))
        assert verdict.outcome == outcome, verdict.reasons


def test_calls_on_other_things_do_not_pair(tmp_path):
    legacy, new = [*block(0), Rec("module_out", "block.0.conv", [1.0, 2.0])], [*block(0), Rec("module_out", "block.0.conv", [9.0])]
    both = tuple(Exclusion(side, "*", "block.*.conv", "*", WHY, by="block.*") for side in (LEGACY, NEW))
    assert judged(tmp_path / "a", legacy, new, exclusions=both).outcome == MATCH
    assert judged(tmp_path / "b", legacy, new, exclusions=both[:1]).outcome == MISMATCH  # the other side says nothing of it
    # of the same shape they are compared, unless that is ruled out
    same = [*block(0), Rec("module_out", "block.0.conv", [9.0, 9.0])]
    assert judged(tmp_path / "c", legacy, same, exclusions=both).outcome == MISMATCH
    apart = tuple(Exclusion(side, "*", "block.*.conv", "*", WHY, by="block.*", apart=True) for side in (LEGACY, NEW))
    assert judged(tmp_path / "d", legacy, same, exclusions=apart).outcome == MATCH
