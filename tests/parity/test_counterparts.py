"""What one side alone has is told as that, and is not blamed for what differs elsewhere."""

import pytest

from converters.rules.mapping import Drop, Keep, Mapping, Rename
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.report.report import exclusion_lines
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, with_asked

from .synthetic import Rec, judged

#: On the legacy side `body` calls the layers, in the port the model does; the legacy side has `aux` besides.
RULES = Mapping(
    "toy", (Rename("body.layers.*.*", "blocks.*.*"), Keep("head.*"), Drop("aux.*", "not ported"), Drop("scale", "unused"))
)
MODULES = {
    LEGACY: dict(classes=("", "body", "body.layers", "body.layers.0", "body.layers.1", "head", "aux")),
    NEW: dict(classes=("", "stem", "blocks", "blocks.0", "blocks.1", "head")),
}
HEAD = Rec("module_out", "head", 3.0)
DROPPED = [
    Rec("param", "scale", phase="weights"),
    Rec("param", "aux.weight", phase="weights"),
    Rec("module_in", "aux", slot="x"),
    Rec("module_out", "aux"),
]


def sides_judged(folder, legacy, new, **more):
    return judged(folder, legacy, new, mapping=RULES, on_legacy=MODULES[LEGACY], on_new=MODULES[NEW], **more)


def calls(name, scope, *values):
    return [Rec("module_in", name, value, slot="x", call=call, scope=scope) for call, value in enumerate(values)]


def test_what_the_rules_drop_is_not_where_the_sides_part(tmp_path):
    verdict = sides_judged(tmp_path, [*DROPPED, HEAD], [Rec("module_out", "head", 4.0)])
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, "head")


def test_what_the_rules_drop_is_unaccounted_for_but_blames_nobody(tmp_path):
    verdict = sides_judged(tmp_path, [*DROPPED, HEAD], [HEAD])
    assert verdict.outcome == INCOMPARABLE and verdict.divergence is None
    assert "4 records have no twin and no written exclusion, the first is param `scale`" in verdict.reasons[0]


@pytest.mark.parametrize(("name", "outcome"), [("scale", INCOMPARABLE), ("head.bias", MISMATCH)])
def test_an_optimizer_that_trains_what_the_rules_drop_is_no_other_optimizer(tmp_path, name, outcome):
    trained = Rec("setting", name, slot="lr", phase="step 1")
    assert sides_judged(tmp_path, [HEAD, trained], [HEAD]).outcome == outcome


def test_a_caller_without_a_counterpart_is_no_other_caller(tmp_path):
    legacy, new = calls("body.layers.0", "body", 1.0), calls("blocks.0", "", 2.0)
    divergence = sides_judged(tmp_path, legacy, new).divergence
    assert divergence.where == "the detector" and divergence.modules == ("body", "")
    assert divergence.message == "The code of the detector calls `blocks.0` (call 0 of the train phase) with another `x`."
    divergence = sides_judged(tmp_path, legacy, calls("blocks.0", "stem", 2.0)).divergence
    assert divergence.where == "stem" and "The code of `stem` calls `blocks.0`" in divergence.message


def test_a_caller_that_both_sides_have_is_told_from_another_one(tmp_path):
    legacy, new = calls("body.layers.0", "head", 1.0), calls("blocks.0", "blocks.1", 2.0)
    divergence = sides_judged(tmp_path, legacy, new).divergence
    assert divergence.where == "head"
    assert divergence.message == (
        "`blocks.0` (call 0 of the train phase) is called by the code of `blocks.1`, on the legacy side by that of `head`."
    )


def test_what_is_missing_has_its_new_name(tmp_path):
    legacy = [*calls("body.layers.0", "body", 1.0), *calls("body.layers.1", "body.layers.0", 1.5), HEAD]
    divergence = sides_judged(tmp_path, legacy, [*calls("blocks.0", "", 1.0), HEAD]).divergence
    assert (divergence.where, divergence.modules) == ("blocks.0", ("body.layers.0", "blocks.0"))
    assert "The code of `blocks.0` calls `blocks.1` (call 0 of the train phase) without `x`" in divergence.message


def test_a_module_without_a_counterpart_is_blamed_only_where_nothing_else_differs(tmp_path):
    wrapper = [*calls("body", "", 0.5), Rec("module_out", "body", 2.5)]
    verdict = sides_judged(tmp_path, [*wrapper, HEAD], [Rec("module_out", "head", 4.0)])
    assert verdict.divergence.where == "head"
    divergence = sides_judged(tmp_path, [*wrapper, HEAD], [HEAD]).divergence
    assert divergence.where == "the detector" and divergence.message == (
        "Nothing on the new side stands for `body` (call 0 of the train phase), which the legacy side's code of the "
        "detector calls."
    )
    divergence = sides_judged(tmp_path, [HEAD], [HEAD, *calls("stem", "", 0.5)]).divergence
    assert divergence.message.startswith("Nothing on the legacy side stands for `stem` (call 0 of the train phase)")


def test_an_exclusion_that_was_asked_for_and_covers_nothing_is_told(tmp_path):
    asked = tuple(Exclusion(side, "*", name, "*", "mine") for side, name in ((NEW, "stem"), (LEGACY, "stem"), (NEW, "stm")))
    verdict = sides_judged(tmp_path, [HEAD], [HEAD, *calls("stem", "", 0.5)], exclusions=asked)
    assert verdict.outcome == MATCH
    assert exclusion_lines(with_asked(verdict, asked)) == ["1 x new * stem *: mine", "0 x new * stm *: mine"]
