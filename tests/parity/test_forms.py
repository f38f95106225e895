"""What the legacy side records in another form is compared in the new side's, and the report says so."""

from pathlib import Path

import pytest
import torch

from converters.errors import MappingError
from converters.rules.mapping import Keep, Mapping
from legacy_adapters.family import Alias, Form
from legacy_adapters.recording.replay import decision_key, sketch_key
from parity.comparing.converted import decisions_for_new_side, in_new_form
from parity.report.report_json import as_dict
from parity.report.sections import coverage_lines
from parity.traces.trace import Trace, decisions
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH

from .synthetic import Rec, judged, write_trace
from .test_families import assert_matches, assert_named, parity

FAMILY = Path(__file__).with_name("sequence_family")
FIRST = Form("layer", permute=(1, 0, 2))
LAST = Form("head", phase="train", select=(0, 5, 6), reason="only the last layer counts")
#: [length 4, batch 2, width 3], and six layers of [2, 3].
VALUES = torch.arange(24.0).reshape(4, 2, 3).cos()
LAYERS = torch.arange(36.0).reshape(6, 2, 3).sin()
LOSS = Rec("loss", "total", 0.25)


def family_of(*forms, aliases=()):
    return Mapping("toy", (Keep("**"),), aliases=aliases, forms=forms)


def of(folder, legacy, new, *forms):
    """Judge sides of many records of which few have another form."""
    same = [Rec("module_out", f"same{number}", [number + 0.25, 0.5]) for number in range(100)]
    return judged(folder, [*same, *legacy, LOSS], [*same, *new, LOSS], mapping=family_of(*forms))


@pytest.mark.parametrize("kind", ["module_in", "module_out", "in_grad", "out_grad"])
def test_a_permuted_record_is_compared_in_the_new_order(tmp_path, kind):
    new = VALUES.transpose(0, 1).contiguous()
    verdict = of(tmp_path, [Rec(kind, "layer", VALUES, "x")], [Rec(kind, "layer", new, "x")], FIRST)
    assert (verdict.outcome, verdict.reasons) == (MATCH, ())
    assert verdict.coverage.permuted == {"dimensions in the order 1, 0, 2": 1} and not verdict.coverage.selected
    assert "  compared permuted: 1 x dimensions in the order 1, 0, 2" in coverage_lines(verdict.coverage)
    assert as_dict(verdict)["coverage"]["permuted"] == {"dimensions in the order 1, 0, 2": 1}


def test_a_permutation_hides_no_difference(tmp_path):
    new = VALUES.transpose(0, 1).contiguous()
    new[1, 3, 2] += 1e-6
    verdict = of(tmp_path, [Rec("module_out", "layer", VALUES)], [Rec("module_out", "layer", new)], FIRST)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "layer"


@pytest.mark.parametrize(
    "form", [Form("other", permute=(1, 0, 2)), Form("layer", permute=(1, 0)), Form("layer", slot="y", permute=(1, 0, 2)),
             Form("layer", phase="predict", permute=(1, 0, 2))],
)  # fmt: skip
def test_what_no_form_fits_is_compared_as_it_is(tmp_path, form):
    square = torch.arange(12.0).reshape(2, 2, 3).cos()
    turned = square.transpose(0, 1).contiguous()
    verdict = of(tmp_path / "same", [Rec("module_out", "layer", square)], [Rec("module_out", "layer", square)], form)
    assert (verdict.outcome, verdict.coverage.permuted) == (MATCH, {})
    verdict = of(tmp_path / "turned", [Rec("module_out", "layer", square)], [Rec("module_out", "layer", turned)], form)
    assert verdict.outcome == MISMATCH


def test_the_first_form_that_fits_decides_and_may_leave_a_record_as_it_is(tmp_path):
    legacy = [Rec("module_in", "layer", VALUES, "x"), Rec("module_in", "layer", VALUES + 1, "mask")]
    new = [Rec("module_in", "layer", VALUES.transpose(0, 1).contiguous(), "x"), legacy[1]]
    verdict = of(tmp_path, legacy, new, Form("layer", slot="mask"), FIRST)
    assert (verdict.outcome, sum(verdict.coverage.permuted.values())) == (MATCH, 1)


@pytest.mark.parametrize(
    ("select", "new"), [((0, 5, 6), LAYERS[5:]), ((0, 4, 6), LAYERS[4:]), ((0, 5), LAYERS[5]), ((1, 1), LAYERS[:, 1])]
)
def test_a_part_is_compared_and_reported_with_its_reason(tmp_path, select, new):
    form = Form("head", select=select, reason="the rest is unused")
    sides = [Rec("module_out", "head", LAYERS)], [Rec("module_out", "head", new.contiguous())]
    verdict = of(tmp_path / "same", *sides, form)
    assert (verdict.outcome, verdict.reasons) == (MATCH, ())
    ((text, count),) = verdict.coverage.selected.items()
    assert count == 1 and text.startswith("only element") and "(the rest is unused)" in text
    assert coverage_lines(verdict.coverage)[-1].startswith("  compared in part: 1 x only element")
    wrong = [Rec("module_out", "head", new.contiguous() + 1e-6)]
    assert of(tmp_path / "wrong", sides[0], wrong, form).outcome == MISMATCH


def test_more_than_two_percent_compared_in_part_is_no_match(tmp_path):
    legacy = [Rec("module_out", "head", LAYERS + call, call=call) for call in range(3)]
    new = [Rec("module_out", "head", LAYERS[5:] + call, call=call) for call in range(3)]
    verdict = of(tmp_path, legacy, new, LAST)
    assert verdict.outcome == INCOMPARABLE
    assert verdict.reasons == ("2.9% of the legacy records are excluded or compared in part; at most 2% may be.",)


def test_a_selection_that_is_not_there_leaves_a_record_as_it_is(tmp_path):
    verdict = of(tmp_path, [Rec("module_out", "head", LAYERS[:5])], [Rec("module_out", "head", LAYERS[:5])], LAST)
    assert (verdict.outcome, verdict.coverage.selected) == (MATCH, {})


def test_a_record_and_its_turned_form_may_both_be_recorded(tmp_path):
    turned = VALUES.transpose(0, 1).contiguous()
    legacy = write_trace(
        tmp_path, Rec("module_in", "layer", VALUES, "x"), Rec("module_out", "layer", turned), Rec("loss", "total", 0.5)
    )
    formed = in_new_form(legacy, family_of(FIRST))
    assert [tuple(record.shape) for record in formed.records] == [(2, 4, 3), (4, 2, 3), ()]
    assert torch.equal(formed.tensor(formed.records[0]), turned)
    assert torch.equal(formed.tensor(formed.records[1]), VALUES)
    assert in_new_form(formed, family_of(FIRST)) is formed


def test_replayed_draws_and_decisions_have_the_new_form_and_name(tmp_path):
    mapping = family_of(Form("mask", scope="layers.*", permute=(1, 0, 2)), aliases=(Alias("mask", "dropped", of="tap"),))
    shape = torch.tensor([4, 2, 3])
    legacy = write_trace(
        tmp_path,
        Rec("basis", "mask", shape, "rand.shape", 0, scope="layers.0"), Rec("tap", "mask", VALUES, "drawn", 0, scope="layers.0"),
        Rec("basis", "mask", shape, "rand.shape", 1, scope="body"), Rec("tap", "mask", VALUES + 1, "drawn", 1, scope="body"),
        Rec("basis", "match", VALUES[0], "cost"), Rec("tap", "match", [0, 1], "rows"),
    )  # fmt: skip
    formed = in_new_form(legacy, mapping)
    shapes = {r.call: formed.tensor(r).tolist() for r in formed.records if r.slot == "rand.shape"}
    assert shapes == {0: [2, 4, 3], 1: [4, 2, 3]}
    bundle = decisions_for_new_side(decisions(formed), mapping)
    keys = [decision_key("train", name, call, slot) for name, call, slot in
            (("dropped", 0, "drawn"), ("dropped", 1, "drawn"), ("match", 0, "rows"))]  # fmt: skip
    assert sorted(bundle) == sorted([*keys, sketch_key("train", "match", 0)])
    assert torch.equal(bundle[keys[0]], VALUES.transpose(0, 1)) and torch.equal(bundle[keys[1]], VALUES + 1)
    assert torch.equal(decisions(Trace.load(tmp_path))[decision_key("train", "mask", 0, "drawn")], VALUES)


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Form("a", permute=(0, 2)), "Form 0 permutes (0, 2), expected every dimension from 0 on once"),
        (Form("a", select=(0,), reason="r"), "Form 0 selects (0,), expected (dim, index) or (dim, start, stop)"),
        (Form("a", select=(0, -1), reason="r"), "Form 0 selects (0, -1), expected (dim, index) or (dim, start, stop)"),
        (Form("a", select=(0, 2, 2), reason="r"), "Form 0 selects (0, 2, 2), which is nothing"),
        (Form("a", select=(0, 1)), "Form 0 leaves out a part of `a` without a reason"),
        ("a", "Form 0 is 'a', expected a legacy_adapters.family.Form"),
    ],
)
def test_a_form_that_cannot_be_used_is_an_error_that_says_why(form, says):
    with pytest.raises(MappingError) as error:
        family_of(form)
    assert str(error.value).startswith(says)


def test_sides_with_other_names_and_forms_match_with_replayed_draws(tmp_path):
    run = ("run", "--family", FAMILY, "--threads", 1)
    fixed = ("--replay", "--tolerance", "fixed", "--rtol", "1e-4", "--atol", "1e-6", "--isolate")
    assert_matches(parity(*run, *fixed))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in FAMILY.glob("*.py"):
        code = file.read_text()
        if file.name == "new.py":
            code = code.replace("self.drop2(self.two(x).relu())", "self.drop2(self.two(x.roll(1, 1)).relu())")
            assert code != file.read_text()
        (wrong / file.name).write_text(code)
    assert_named(parity("run", "--family", wrong, "--threads", 1, *fixed, "--json"), "layers.0")
