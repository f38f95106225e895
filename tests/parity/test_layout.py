"""What differs in its layout only is told with the form to write; what fits nothing is told, too."""

import pytest
import torch

from converters.rules.mapping import Keep, Mapping
from legacy_adapters.family import Alias, Form
from parity.comparing.compare import Tolerance
from parity.report.report import layout_lines
from parity.verdict.verdict import MATCH, MISMATCH

from .synthetic import Rec, judged

FIXED = Tolerance("fixed", rtol=1e-5, atol=1e-6)
X = torch.arange(24.0).reshape(4, 2, 3).sin()
SQUARE = torch.arange(9.0).reshape(3, 3).cos()


def of(folder, legacy, new, *forms, aliases=(), tolerance=FIXED):
    mapping = Mapping("toy", (Keep("**"),), forms=forms, aliases=aliases)
    end = [Rec("module_out", "head", 1.0)]
    return judged(folder, [*legacy, *end], [*new, *end], mapping=mapping, tolerance=tolerance)


def out(name, tensor, slot="", call=0):
    return Rec("module_out", name, tensor.contiguous(), slot, call)


@pytest.mark.parametrize(
    ("legacy", "new", "order"),
    [(X, X.transpose(0, 1), (1, 0, 2)), (X, X.permute(1, 2, 0), (1, 2, 0)), (SQUARE, SQUARE.t(), (1, 0))],
    ids=str,
)
@pytest.mark.parametrize("tolerance", [Tolerance(), FIXED], ids=lambda one: one.name)
def test_a_permutation_is_said_to_be_one_and_the_form_makes_it_match(tmp_path, legacy, new, order, tolerance):
    sides = [out("layers.0.fc", legacy)], [out("layers.0.fc", new)]
    verdict = of(tmp_path / "without", *sides, tolerance=tolerance)
    assert (verdict.outcome, verdict.divergence.where) == (MISMATCH, "layers.0.fc")
    line = f'Form("layers.*.fc", permute={order})'
    assert layout_lines(verdict)[0] == f"equal after permuting its axes {order}" and verdict.forms == (line,)
    assert of(tmp_path / "with", *sides, eval(line, {"Form": Form}), tolerance=tolerance).outcome == MATCH


def test_all_modules_in_another_layout_are_listed_at_once(tmp_path):
    legacy = [out(f"layers.{i}.fc", X + i) for i in (0, 1)] + [out("norm", X + 2), out("other", X + 3)]
    new = [out(f"layers.{i}.fc", (X + i).transpose(0, 1)) for i in (0, 1)]
    new += [out("norm", (X + 2).transpose(0, 1)), out("other", X + 4)]
    assert of(tmp_path, legacy, new).forms == (
        'Form("layers.*.fc", permute=(1, 0, 2))', 'Form("norm", permute=(1, 0, 2))',
    )  # fmt: skip


def test_another_value_is_no_permutation(tmp_path):
    verdict = of(tmp_path, [out("fc", X)], [out("fc", X.transpose(0, 1) + 0.01)])
    assert (verdict.layout, verdict.forms) == ("", ())


def test_a_form_may_be_of_one_call(tmp_path):
    legacy, new = [out("norm", X), out("norm", X + 1, call=1)], [out("norm", X), out("norm", (X + 1).transpose(0, 1), call=1)]
    assert of(tmp_path / "one", legacy, new, Form("norm", permute=(1, 0, 2), call=1)).outcome == MATCH
    assert of(tmp_path / "all", legacy, new, Form("norm", permute=(1, 0, 2))).outcome == MISMATCH


def test_forms_and_aliases_that_fit_nothing_are_told(tmp_path):
    forms = Form("nrom", permute=(1, 0, 2)), Form("norm", slot="x", select=(0, 9), reason="r"), Form("norm", permute=(1, 0, 2))
    aliases = Alias("head", "head"), Alias("heed", "top"), Alias("stage0_loss", "loss", of="loss")
    verdict = of(tmp_path, [out("norm", X)], [out("norm", X.transpose(0, 1))], *forms, aliases=aliases)
    assert verdict.outcome == MATCH
    assert verdict.idle_names == (
        'Alias("heed", "top")', 'Form("nrom", permute=(1, 0, 2))', 'Form("norm", slot="x", select=(0, 9))',
    )  # fmt: skip
