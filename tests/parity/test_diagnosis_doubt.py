"""Of two explanations that both hold, both are said or none; what looks like a kind of difference need not be one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from parity.comparing.derived import told_apart
from parity.diagnosis.kinds import DiagnosisKind as K
from parity.diagnosis.layers import Fit, Layer, fitted
from parity.report.diagnosis import diagnosis_lines

from .synthetic import Rec, judged
from .test_diagnosis import (
    BATCH,
    IMAGE,
    NORM,
    POSITIVE,
    TOKENS,
    X,
    batch_norm,
    drawn,
    explained,
    layer_of,
    of_a_sketch,
)

GRID, NEAR_ONE, SQUARE = torch.linspace(-1, 1, 9), 1 + drawn(4, 16).sigmoid() * 0.99, drawn(16, 16)
LONG = drawn(32, 8, seed=9)
#: Where two explanations hold both are said, or the fact alone.
BOTH = {
    "half precision or a grid": (NEAR_ONE, (NEAR_ONE * 128).round() / 128, "rounded to bf16, or to multiples of 1/128"),
    "TF32 or a grid": (NEAR_ONE, (NEAR_ONE * 1024).round() / 1024, "fp16 or TF32, or to multiples of 1/1024"),
    "half precision": (LONG, LONG.bfloat16().float(), "rounded to bf16"),
    "sign or order": (GRID, -GRID, "other sign, or in another order"),
    "order or one minus": ((GRID + 1) / 2, (1 - GRID) / 2, "in reverse order, or times -1 plus 1"),
    "of whole numbers, too": (torch.arange(8), torch.arange(8).flip(0), "in reverse order, or times -1 plus 7"),
    "shift or offset": (torch.arange(8.0), (torch.arange(8.0) - 1).relu(), "1 later along axis 0, or minus 1 but at the first"),
    "many masks": (torch.arange(20) % 2 < 1, torch.arange(20) % 2 > 0, "True and False exchanged, or in another order"),
    "masks": (torch.arange(4) < 2, torch.arange(4) >= 2, "True and False exchanged, or in another order"),
    "equal rows": (X[0, [0, 1, 1, 1]], X[0, [1, 1, 1, 0]], "2 of 4 at another place, some of which are equal"),
    "padded rows": (F.pad(X[0], (0, 0, 0, 2)), F.pad(X[0], (0, 0, 0, 2)).flip(0), "in reverse order"),
    "heads": (X[0], X[0].view(6, 4, 2)[:, [1, 0, 3, 2]].flatten(1), "in 4 blocks of 2, in the order 1, 0, 3, 2"),
    "conjugates": (LONG.view(32, 4, 2), LONG.view(32, 4, 2) * torch.tensor([1.0, -1]), "the conjugates, if these are"),
    "the first or the last": (X[0, :1].expand(4, 8), X[0, :1].expand(3, 8), "the first or the last 3 of"),
    "a function or its inverse": (POSITIVE, POSITIVE**2, "which is: the legacy side's are the square root"),
    "half the columns": (LONG, 2 * LONG * (torch.arange(8) < 4), "2 before index 4, 0 from there"),
    "a sine moved by a phase": (
        (torch.arange(64.0) * torch.pi / 16).sin(), (torch.arange(64.0) * torch.pi / 16).cos(), "some of which are equal"),
    "rows sorted": (LONG, LONG.sort(-1).values, "sorted along axis 1"),
}


@pytest.mark.parametrize("case", BOTH, ids=lambda case: case.replace(" ", "-"))
def test_of_two_explanations_both_are_said(tmp_path, case):
    legacy, new, text = BOTH[case]
    said = explained(tmp_path, legacy.contiguous(), new.contiguous())
    assert text in said[0][1] and (", or" in text or ", or" not in said[0][1]), said


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_dropout_is_told_by_zeros_at_random_places(tmp_path, rate):
    torch.manual_seed(0)
    said = explained(tmp_path, LONG, F.dropout(LONG, rate))
    assert said[0][0] == K.DROPOUT and f"as dropout with p={rate} leaves them" in said[0][1], said


#: Zeros by a rule, the rest twice as large.
RULES = {
    "negative": lambda x: 2 * x.relu(),
    "small": lambda x: 2 * x * (x.abs() > x.abs().median()),
    "large": lambda x: 2 * x * (x.abs() < x.abs().median()),
    "every second": lambda x: 2 * x * ((torch.arange(16)[:, None] + torch.arange(16)) % 2),
    "above the diagonal": lambda x: 2 * x.tril(),
    "some rows": lambda x: 2 * x * (torch.arange(16) % 4 < 2)[:, None],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.replace(" ", "-"))
def test_zeros_by_a_rule_are_no_dropout(tmp_path, rule):
    assert K.DROPOUT not in [kind for kind, _ in explained(tmp_path, SQUARE, RULES[rule](SQUARE))]


def test_a_column_of_zeros_among_zeros_at_random_places_is_no_dropout(tmp_path):
    torch.manual_seed(0)
    wide = drawn(64, 64)
    dropped = F.dropout(wide, 0.5)
    assert K.DROPOUT in [kind for kind, _ in explained(tmp_path / "random", wide, dropped)]
    said = explained(tmp_path / "column", wide, dropped * (torch.arange(64) != 5))
    assert K.DROPOUT not in [kind for kind, _ in said], said


EVEN = F.layer_norm(TOKENS, (16,))
PLAIN, PLAIN_BATCH = nn.LayerNorm(16), nn.BatchNorm2d(8).eval()
FACTORS = [
    ("layernorm", PLAIN, EVEN, lambda x: 0.5 * PLAIN(x), K.FACTOR, "times 0.5"),
    ("layernorm", PLAIN, EVEN, lambda x: 0.99 * PLAIN(x), K.FACTOR, "times 0.99"),
    ("layernorm", PLAIN, EVEN, lambda x: F.layer_norm(x, (16,), eps=1e-3), K.EPS, "or a factor of 0.9995"),
    ("layernorm", NORM, EVEN, lambda x: 0.5 * (NORM(x) - NORM.bias) + NORM.bias, None, ""),
    ("layernorm", NORM, EVEN, lambda x: NORM(x) + 1e-3 * drawn(3, 5, 16, seed=1), None, ""),
    ("batchnorm", BATCH, IMAGE, lambda x: batch_norm(x, training=True) + 1e-3 * drawn(2, 8, 6, 7, seed=1), None, ""),
    ("batchnorm", PLAIN_BATCH, IMAGE, lambda x: 0.5 * PLAIN_BATCH(x), K.FACTOR, "times 0.5"),
    ("groupnorm", nn.GroupNorm(4, 8), F.group_norm(IMAGE, 4), lambda x: 0.5 * F.group_norm(x, 4), K.FACTOR, "0.5"),
    ("instancenorm", nn.InstanceNorm2d(8), F.instance_norm(IMAGE), lambda x: 0.5 * F.instance_norm(x), K.FACTOR, "0.5"),
    ("instancenorm", nn.InstanceNorm2d(8), IMAGE, lambda x: F.instance_norm(x, eps=0.01), K.EPS, "Instancenorm with eps 0.01"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "module", "x", "other", "kind", "text"), FACTORS)
def test_an_eps_is_said_where_the_variances_tell_it_from_a_factor(tmp_path, name, module, x, other, kind, text):
    before, legacy = layer_of(module, x, name)
    with torch.no_grad():
        said = explained(tmp_path, legacy, other(x), name, before)
    assert (said[0][0] if said else None) == kind and text in (said[0][1] if said else ""), said


def test_of_a_kernel_that_looks_the_same_turned_round_and_transposed_nothing_is_said(tmp_path):
    """Which of the two it is, no number tells."""
    conv = nn.Conv2d(8, 8, 3, padding=1)
    before, _ = layer_of(conv, IMAGE, "conv")
    weight = conv.weight.detach()
    both = weight + weight.flip(2, 3).transpose(2, 3)
    before[0] = Rec("param", "conv.weight", both, phase="weights")
    sides = [F.conv2d(IMAGE, one, conv.bias.detach(), padding=1) for one in (both, both.flip(2, 3))]
    assert explained(tmp_path, *sides, "conv", before) == []


@pytest.mark.parametrize(("rounding", "legacy"), [(5e-8, "plain"), (2e-7, None)])
def test_a_plain_layer_explains_its_side_if_it_is_far_from_the_other(rounding, legacy):
    """It is preferred to what is a little nearer, but not where its own rounding is of the size of the difference."""
    ones, gap = torch.ones(8, dtype=torch.float64), 1e-6
    layers = Layer(ones, ones, {}), Layer(ones, ones + gap, {})
    results = dict(plain=ones + rounding, exact=ones, other=ones + gap)
    fit = fitted(layers, [(name, lambda layer, one=one: one) for name, one in results.items()], gap, "plain")
    assert fit == (legacy and Fit(legacy, "other", 0.0))


def test_a_row_is_moved_among_rows_of_one_number(tmp_path):
    """No factor and offset of rows of one number give another row: that it is moved is all that is said."""
    row, even = drawn(8), torch.ones(1, 8)
    legacy = torch.cat([row[None], even, even, even])
    new = torch.cat([torch.zeros(1, 8), row[None], even, even])
    assert explained(tmp_path, legacy, new)[0] == (K.SHIFT, "the legacy side's numbers 1 later along axis 0")


def test_a_layer_is_said_as_far_as_its_numbers_show(tmp_path):
    linear, whole = nn.Linear(16, 16), torch.arange(48.0).view(3, 16) % 7 - 3
    nn.init.constant_(linear.bias, 0.25)
    before, legacy = layer_of(linear, whole, "linear")
    with torch.no_grad():
        coarse = F.linear(whole, linear.weight.bfloat16().float(), linear.bias)
        rounded = explained(tmp_path / "one", legacy, coarse, "linear", before)
        even = explained(tmp_path / "two", legacy, legacy - 0.25, "linear", before)
    assert rounded[0][0] == K.PRECISION and "of weights rounded to bf16" in rounded[0][1]
    assert even[0][0] == K.BIAS and "or 0.25 less everywhere" in even[0][1]


@pytest.mark.parametrize(("legacy", "new", "text"), [
    (lambda x, body: body, lambda x, body: body - x, ": the new side subtracts it"),
    (lambda x, body: body + x, lambda x, body: body, ": a term is missing"),
    (lambda x, body: 2 * body + x, lambda x, body: 2 * body, ": a term is missing, or is subtracted"),
])  # fmt: skip
def test_a_term_is_missing_or_subtracted(tmp_path, legacy, new, text):
    x, body = drawn(2, 6, 8, seed=3), drawn(2, 6, 8, seed=4)
    before = [Rec("module_in", "part", x, slot="x"), Rec("module_out", "part.ffn", body, scope="part")]
    said = explained(tmp_path, legacy(x, body), new(x, body), before=before)
    assert said[0][0] == K.RESIDUAL and said[0][1].endswith(text), said


@pytest.mark.parametrize(("more", "kind", "text"), [
    (dict(frozen=("part.w",)), K.FROZEN, "`part.w` is trained on the legacy side, and frozen on the new one"),
    (dict(), K.FROZEN, "no parameter on the new one"),
    (dict(without_gradient=("part.w",)), K.DETACH, "a detach, code without gradients, or a parameter that is not used"),
])  # fmt: skip
def test_what_is_frozen_is_not_detached(tmp_path, more, kind, text):
    both = [Rec("param", "part.w", X, phase="weights"), Rec("module_out", "part", X)]
    flow = [Rec("out_grad", "part", X), Rec("grad", "part.w", X)]
    found = judged(tmp_path, [*both, *flow], both, on_new=dict(cut_off=(["train", "out_grad", "part", 0, ""],), **more))
    assert [(one.kind, text in one.text) for one in found.explanation.diagnoses] == [(kind, True)]


def test_masks_of_few_elements_are_not_told_apart(tmp_path):
    one, two = torch.tensor([True, False, True, True]), torch.tensor([True, True, False, True])
    said = explained(tmp_path, one, two, before=[Rec("module_out", "other", two)])
    assert K.OTHER_RECORD not in [kind for kind, _ in said]


def test_what_remains_is_not_measured_against_another_shape(tmp_path):
    sides = [[Rec("module_out", "part", values)] for values in (X, X[:, :-2].contiguous())]
    (line,) = diagnosis_lines(judged(tmp_path, *sides).explanation.diagnoses)
    assert "inf" not in line and line.endswith("along axis 1 (explains every bit)")


@pytest.mark.parametrize(("one", "two", "text"), [(0.594, 0.591, ("0.594", "0.591")), (3.3, 1.0, ("3.3", "1"))])
def test_figures_that_differ_look_different(one, two, text):
    assert told_apart(one, two) == text


def test_of_a_sketch_the_same_is_doubted(tmp_path):
    even = torch.linspace(0, 1, 33).double()
    assert "or times -1 plus 1" in of_a_sketch(tmp_path / "even", even, 1 - even)[0][1]
    before, _ = layer_of(PLAIN, TOKENS, "layernorm")
    sides = [F.layer_norm(TOKENS.double(), (16,), eps=eps) for eps in (3e-6, 1e-3)]
    assert of_a_sketch(tmp_path / "eps", *sides, "layernorm", before) == []  # no usual eps gives the legacy side's
