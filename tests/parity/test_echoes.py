"""An output that the new side leaves out is accounted for if nothing shows that it was used."""

import pytest

from legacy_adapters.family import Exclusion
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import Rec, judged

CALL = [Rec("module_in", "attn", [1.0, 2.0]), Rec("module_out", "attn", [3.0, 4.0], "0")]
WEIGHTS = Rec("module_out", "attn", [0.25, 0.75], "1")
GRADIENT = Rec("grad", "attn.weight", [0.5])


@pytest.mark.parametrize(("legacy", "new", "outcome"), [
    ([*CALL, WEIGHTS, GRADIENT], [*CALL, GRADIENT], MATCH),
    ([*CALL, WEIGHTS], CALL, INCOMPARABLE),  # no gradient shows that it was not used
    ([*CALL, WEIGHTS, GRADIENT], [*CALL, Rec("grad", "attn.weight", [0.75])], MISMATCH),
    ([*CALL, WEIGHTS, GRADIENT, Rec("loss", "total", 1.0)], [*CALL, GRADIENT], INCOMPARABLE),  # more is missing
    ([CALL[0], WEIGHTS, GRADIENT], [CALL[0], GRADIENT], INCOMPARABLE),  # it gives nothing
])  # fmt: skip
def test_output_that_the_new_side_leaves_out(tmp_path, legacy, new, outcome):
    assert judged(tmp_path, legacy, new).outcome == outcome


def test_why_it_is_accounted_for_is_told(tmp_path):
    (item,) = judged(tmp_path, [*CALL, WEIGHTS, GRADIENT], [*CALL, GRADIENT]).coverage.explained_records
    assert "leaves out" in item.explained


STACKED = Rec("module_in", "head", [[1.0, 2.0], [3.0, 4.0]], "boxes")
LISTED = [Rec("module_in", "head", [1.0, 2.0], "boxes.0"), Rec("module_in", "head", [3.0, 4.0], "boxes.1")]
RESULT = Rec("module_out", "head", [5.0], "")


@pytest.mark.parametrize(("legacy", "new", "outcome"), [
    ([*LISTED, RESULT], [STACKED, RESULT], MATCH),
    ([STACKED, RESULT], [*LISTED, RESULT], MATCH),
    ([*LISTED, RESULT], [STACKED, Rec("module_out", "head", [6.0], "")], MISMATCH),
    ([*LISTED, RESULT], [LISTED[0], RESULT], INCOMPARABLE),
    ([LISTED[0], RESULT], [STACKED, RESULT], INCOMPARABLE),  # not as many
    ([*LISTED, RESULT, Rec("loss", "total", 1.0)], [STACKED, RESULT], INCOMPARABLE),  # more is missing
])  # fmt: skip
def test_a_list_of_tensors_may_be_passed_as_one_tensor(tmp_path, legacy, new, outcome):
    assert judged(tmp_path, legacy, new).outcome == outcome


WHOLE = [Rec("module_in", "whole", [1.0, 2.0]), Rec("module_out", "whole", [3.0, 4.0], "0")]
UNKNOWN = Rec("module_out", "whole", [7.0, 8.0], "1")
UNUSED = Exclusion("legacy", "module_out", "whole", "1", "nothing is computed with it")


@pytest.mark.parametrize(("legacy", "exclusions", "outcome"), [
    ([*CALL, *WHOLE], (), MATCH),
    ([*CALL, *WHOLE, UNKNOWN], (), INCOMPARABLE),
    ([*CALL, *WHOLE, UNKNOWN], (UNUSED,), MATCH),
    ([*CALL, WHOLE[0], UNKNOWN], (UNUSED,), INCOMPARABLE),  # what it gives is not compared anywhere
])  # fmt: skip
def test_of_a_call_of_one_side_what_is_not_excluded_must_be_known(tmp_path, legacy, exclusions, outcome):
    more = [Rec("module_out", "layer", [float(i), 0.25], call=i) for i in range(60)]  # 2 % may be excluded
    assert judged(tmp_path, [*legacy, *more], [*CALL, *more], exclusions=exclusions).outcome == outcome
