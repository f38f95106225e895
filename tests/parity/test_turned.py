"""What differs in nothing but the order of its dimensions is told with the form to write; what fits nothing is listed."""

import pytest
import torch

from legacy_adapters.family import Alias, Form
from parity.report.sections import idle_lines
from parity.verdict.verdict import MATCH, MISMATCH

from .synthetic import Rec
from .test_forms import VALUES, family_of, judged, of

TURNED = VALUES.transpose(0, 1).contiguous()
#: Of equal lengths, so that only the values tell how it is turned.
SQUARE = torch.arange(16.0).reshape(4, 4).cos()


def layers(values, slot=""):
    return [Rec("module_out", f"layers.{number}", values + number, slot) for number in range(3)]


def test_the_form_that_is_told_makes_the_sides_match(tmp_path):
    verdict = of(tmp_path / "without", layers(VALUES), layers(TURNED))
    assert verdict.outcome == MISMATCH and verdict.forms == ('Form("layers.*", permute=(1, 0, 2))',)
    form = eval(verdict.forms[0], dict(Form=Form))
    assert of(tmp_path / "with", layers(VALUES), layers(TURNED), form).outcome == MATCH


def test_an_order_is_told_by_values_where_shapes_do_not(tmp_path):
    verdict = of(tmp_path, layers(SQUARE), layers(SQUARE.T.contiguous()))
    assert verdict.forms == ('Form("layers.*", permute=(1, 0))',)


@pytest.mark.parametrize("changed", [TURNED + 0.01, TURNED.flip(0), VALUES.transpose(0, 2)], ids=["off", "rows", "other"])
def test_no_form_is_told_of_what_differs_in_more_than_its_layout(tmp_path, changed):
    new = changed.contiguous()
    forms = of(tmp_path, layers(VALUES), layers(new)).forms
    assert forms == (() if new.shape == TURNED.shape else ('Form("layers.*", permute=(2, 1, 0))',))


def test_a_form_names_the_slot_where_others_are_laid_out_alike(tmp_path):
    kept = [Rec("module_in", f"layers.{number}", SQUARE + number, "query") for number in range(3)]
    verdict = of(tmp_path, [*kept, *layers(VALUES, "0")], [*kept, *layers(TURNED, "0")])
    assert verdict.forms == ('Form("layers.*", slot="0", permute=(1, 0, 2))',)


def test_aliases_and_forms_that_fit_nothing_are_listed_and_change_no_verdict(tmp_path):
    fits, misspelt = Alias("same1", "same1"), Alias("smae2", "same2")
    forms = (Form("layer", permute=(1, 0, 2)), Form("lyaer", permute=(1, 0, 2)), Form("layer", call=7, permute=(0, 2, 1)))
    records = [Rec("module_out", f"same{number}", [number + 0.25, 0.5]) for number in range(9)]
    sides = ([*records, Rec("module_out", "layer", values), Rec("loss", "total", 0.25)] for values in (VALUES, TURNED))
    verdict = judged(tmp_path, *sides, mapping=family_of(*forms, aliases=(fits, misspelt)))
    assert verdict.outcome == MATCH
    assert verdict.idle_names == (
        'Alias("smae2", "same2")', 'Form("lyaer", permute=(1, 0, 2))', 'Form("layer", call=7, permute=(0, 2, 1))'
    )  # fmt: skip
    assert any("smae2" in line for line in idle_lines(verdict.idle_names, "toy"))
