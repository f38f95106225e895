"""What a difference is, is stated where the data show it, and nothing is stated where they do not."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from parity.comparing.compare import Comparison
from parity.comparing.pairing import Pair
from parity.diagnosis.diagnose import diagnosed
from parity.diagnosis.kinds import DiagnosisKind as K
from parity.diagnosis.scene import Scene, Target
from parity.golden.sketch import sketch

from .synthetic import Rec, judged, write_trace


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def explained(folder, legacy, new, name="part", before=(), kind="module_out", **more):
    """Return kind and text of what is said of a record, ``before`` which both sides have others."""
    classes = dict(classes=(name,))
    sides = [[*before, Rec(kind, name, values, **more)] for values in (legacy, new)]
    verdict = judged(folder, *sides, on_legacy=classes, on_new=classes)
    assert verdict.outcome == "MISMATCH"
    return [(one.kind, one.text) for one in verdict.explanation.diagnoses]


X = drawn(2, 6, 8)
EXACT, WIDE = X.double(), 2 * drawn(20, 2, seed=5)
POSITIVE = X.abs() + 0.1
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1, 1, 0, 2, 2, 0])
LONG, MANY_AXES = drawn(5, 12, seed=7), drawn(2, 2, 2, 2, 2, 2, seed=6)
TURNS = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize(
    ("legacy", "new", "kind", "text"),
    [
        (X, X.flip(-1), K.PERMUTATION, "along axis 2: in reverse order"),
        (X, X.flip(0, 2), K.PERMUTATION, "axes 0 and 2"),
        (X, X.roll(1, 1), K.PERMUTATION, "rolled by 1"),
        (X, X.roll(4, 2), K.PERMUTATION, "halves exchanged"),
        (X, X.view(2, 6, 4, 2).flip(2).reshape(X.shape), K.PERMUTATION, "in 4 blocks of 2, in reverse order"),
        (X, X.view(2, 6, 4, 2).flip(3).reshape(X.shape), K.PERMUTATION, "within each of 4 blocks of 2"),
        (X, X.view(2, 6, 4, 2).transpose(2, 3).reshape(X.shape), K.PERMUTATION, "blocks of"),
        (LONG, LONG[:, TURNS], K.PERMUTATION, "within each of 2 blocks of 6, in the order 0, 3, 1, 4, 2, 5"),
        (X, X[:, [0, 3, 2, 1, 4, 5]], K.PERMUTATION, "1 and 3 exchanged"),
        (X, torch.stack([X[0, [2, 0, 1, 5, 4, 3]], X[1, [5, 1, 0, 2, 3, 4]]]), K.PERMUTATION, "in another way"),
        (X[0, :, :6], X[0, :, :6].t(), K.TRANSPOSE, "transposed"),
        (X, X.transpose(1, 2), K.TRANSPOSE, "0, 2, 1"),
        (X, torch.cat([X[:, :1], X[:, :-1]], 1), K.SHIFT, "1 later along axis 1"),
        (X, X[:1].expand_as(X), K.REPEATED, "index 0"),
        (X, X.reshape(-1)[torch.randperm(96, generator=torch.Generator().manual_seed(1))].view_as(X), K.MOVED, "places"),
        (MANY_AXES, MANY_AXES.flip(0, 2), K.MOVED, "in no order that was tried"),
        (X, X * 0.5, K.FACTOR, "times 0.5"),
        (X, X / 3, K.FACTOR, "times 0.333333"),
        (X, X * torch.linspace(0.5, 1.5, 6)[:, None], K.FACTOR, "each index of axis 1: 0.5, 0.7, 0.9, 1.1 ..."),
        (X, X + 0.25, K.OFFSET, "plus 0.25"),
        (X, X + torch.arange(8), K.OFFSET, "each index of axis 2"),
        (X, X + 0.25 * (torch.arange(8) == 3), K.OFFSET, "each index of axis 2: 0.25 at index 3, 0 at the others"),
        (X, -X, K.SIGN, "other sign"),
        (X > 0, X <= 0, K.INVERTED, "exchanged"),
        (X, X.clamp(-0.5, 0.5), K.CLAMP, "none below -0.5 and none above 0.5"),
        (WIDE.clamp(max=torch.tensor([1.0, 9.0])), WIDE, K.CLAMP, "not limited: the legacy side has none above 1"),
        (X * 9, (X * 9).floor(), K.WHOLE, "rounded down to the next whole number"),
        (X, (X * 16).round() / 16, K.WHOLE, "1/16"),
        (X, torch.zeros_like(X), K.CONSTANT, "every number of the new side is 0"),
        (LABELS, LABELS + 1, K.OFFSET, "plus 1"),
        (LABELS, torch.where(LABELS == 1, 2, LABELS), K.RELABELLED, "1 became 2"),
        (X, X.sigmoid(), K.FUNCTION, "the sigmoid of the legacy side's"),
        (POSITIVE.log(), POSITIVE, K.FUNCTION, "exp"),
        (X, X.bfloat16().float(), K.PRECISION, "new side's numbers are the legacy side's rounded to bf16"),
        (X, X.half().float(), K.PRECISION, "fp16"),
        (X, X.double(), K.TYPE, "F64 in place of F32"),
        (X[:0], X[:0].double(), K.TYPE, "F64 in place of F32"),
        (X, X.flatten(), K.SHAPE, "[96]"),
        (X, X[:, :-2], K.SHAPE, "the first 4 of the legacy side's 6 along axis 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_is_said(tmp_path, legacy, new, kind, text):
    said = explained(tmp_path, legacy, new.contiguous())
    assert said[0][0] == kind and text in said[0][1], said


NOTHING = {
    "one label of its kind": (torch.tensor([0, 0, 1, 1, 2, 1, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 5, 1, 0, 0, 1])),
    "a bound for each number": (
        torch.stack([torch.zeros(8), 2 + X[0, 0].abs()]), torch.stack([torch.zeros(8), 1 + X[0, 1].sigmoid()])),
    "noise": (X, X + 0.01 * drawn(2, 6, 8, seed=1)),
    "noise of the same size": (X, drawn(2, 6, 8, seed=1)),
    "two constants": (torch.ones(4, 4), torch.full((4, 4), 2.0)),
    "constants of two signs": (torch.ones(4, 4), -torch.ones(4, 4)),
    "a factor of one element": (torch.tensor([0.0, 0.0, 3.0, 0.0]), torch.tensor([0.0, 0.0, 6.0, 0.0])),
    "a factor or an offset of equal numbers": (torch.tensor([2.0, 2.0, 0.0, 0.0]), torch.tensor([4.0, 4.0, 0.0, 0.0])),
    "single numbers": (torch.tensor([3.0]), torch.tensor([6.0])),
    "nearly a factor": (X, X * 0.5 + 1e-3 * drawn(2, 6, 8, seed=1)),
    "nearly a permutation": (X, X.flip(1) + 1e-3 * drawn(2, 6, 8, seed=1)),
    "a factor for each element": (X, X * torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(2))),
    "labels without a rule": (LABELS, LABELS.flip(0).cumsum(0)),
    "an offset of nearly equal numbers": (1e3 + 1e-3 * X, 2e3 + 1e-3 * X),
    "a factor that might be a sum": (torch.arange(4.0), torch.arange(4.0) + 1),
    "booleans with as many True": (X > 0, (X > 0).reshape(-1)[torch.randperm(96)].view_as(X)),
    "factors or offsets of rows of equal numbers": (
        torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 4), torch.tensor([2.0, 6.0, 5.0])[:, None].expand(3, 4)),
    "whole numbers of something else": (X, (3 * drawn(2, 6, 8, seed=1)).round()),
    "two numbers exchanged that differ in sign": (torch.tensor([1.0, -1.0]), torch.tensor([-1.0, 1.0])),
}


@pytest.mark.parametrize("case", NOTHING, ids=lambda case: case.replace(" ", "-"))
def test_what_the_data_do_not_show_is_not_said(tmp_path, case):
    assert [one for one in explained(tmp_path, *NOTHING[case]) if not one[0].is_place] == []


def layer_of(module, x, name):
    """Return records of what a layer takes and holds, and what it gives."""
    state = [Rec("param", f"{name}.{key}", value, phase="weights") for key, value in module.state_dict().items()]
    with torch.no_grad():
        return [*state, Rec("module_in", name, x, slot="x")], module(x)


IMAGE, TOKENS = drawn(2, 8, 6, 7), drawn(3, 5, 16)
torch.manual_seed(0)
NORM, BATCH, GROUP = nn.LayerNorm(16), nn.BatchNorm2d(8).eval(), nn.GroupNorm(4, 8)
CONV, LINEAR = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(16, 16)
for module in (NORM, BATCH, GROUP):
    nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias)
BATCH.running_mean.normal_(), BATCH.running_var.uniform_(0.5, 2)
WIDER = nn.Conv2d(8, 8, 3, padding=2, dilation=2)


def batch_norm(x, training=False, eps=1e-5):
    return F.batch_norm(x, BATCH.running_mean.clone(), BATCH.running_var.clone(), BATCH.weight, BATCH.bias, training, 0.1, eps)


def convolved(x, weight=CONV.weight, bias=CONV.bias, **more):
    return F.conv2d(x, weight, bias, **{"padding": 1, **more})


LAYERS = [
    ("layernorm", NORM, TOKENS, lambda x: F.layer_norm(x, (16,), NORM.weight, NORM.bias, 1e-6), K.EPS, "eps 1e-06 in"),
    ("layernorm", NORM, TOKENS, lambda x: F.layer_norm(x, (16,), NORM.weight, NORM.bias, 3e-4), K.EPS, "about 0.0003"),
    ("layernorm", NORM, TOKENS, lambda x: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + 1e-5).sqrt() * NORM.weight
     + NORM.bias, K.VARIANCE, "divided by n-1"),
    ("batchnorm", BATCH, IMAGE, lambda x: batch_norm(x, eps=1e-3), K.EPS, "eps 0.001 in place of 1e-05"),
    ("batchnorm", BATCH, IMAGE, lambda x: batch_norm(x, training=True), K.BATCH_NORM, "the batch's own statistics"),
    ("groupnorm", GROUP, IMAGE, lambda x: F.group_norm(x, 4, GROUP.weight, GROUP.bias, 1e-3), K.EPS, "eps 0.001"),
    ("groupnorm", GROUP, IMAGE, lambda x: F.group_norm(x, 2, GROUP.weight, GROUP.bias), K.GROUPS, "2 groups in place of 4"),
    ("relu", nn.ReLU(), IMAGE, F.gelu, K.ACTIVATION, "GELU in place of ReLU"),
    ("softmax", nn.Softmax(1), IMAGE, lambda x: x.softmax(2), K.ACTIVATION, "softmax along axis 2 in place"),
    ("conv", CONV, IMAGE, lambda x: convolved(x, dilation=2, padding=2), K.GEOMETRY, "dilation 2"),
    ("conv", CONV, IMAGE, lambda x: convolved(x, stride=2), K.GEOMETRY, "stride 2"),
    ("conv", CONV, IMAGE, lambda x: convolved(F.pad(x, (1,) * 4, "reflect"), padding=0), K.GEOMETRY, "(reflect)"),
    ("conv", CONV, IMAGE, lambda x: convolved(x, CONV.weight.flip(2, 3)), K.WEIGHT, "kernel turned round"),
    ("conv", CONV, IMAGE, lambda x: convolved(x, bias=None), K.BIAS, "without its bias"),
    ("conv", CONV, IMAGE, lambda x: convolved(x.bfloat16().float(), CONV.weight.bfloat16().float()), K.PRECISION, "bf16"),
    ("linear", LINEAR, TOKENS, lambda x: F.linear(x, LINEAR.weight.t(), LINEAR.bias), K.WEIGHT, "weight transposed"),
    ("linear", LINEAR, TOKENS, lambda x: F.linear(x, LINEAR.weight), K.BIAS, "without its bias"),
    ("maxpool", nn.MaxPool2d(3, 2, 1), drawn(2, 3, 9, 9), lambda x: F.avg_pool2d(x, 3, 2, 1), K.GEOMETRY, "mean pooling"),
    ("upsample", nn.Upsample(scale_factor=2), IMAGE, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
     K.INTERPOLATION, "bilinear interpolation, corners not aligned"),
    ("batchnorm", nn.BatchNorm2d(8, momentum=0), IMAGE, lambda x: F.batch_norm(x, None, None, training=True, eps=1e-3),
     K.EPS, "BatchNorm with eps 0.001 in place of 1e-05"),
    ("conv", WIDER, IMAGE, lambda x: convolved(x, WIDER.weight.flip(2, 3), WIDER.bias, padding=2, dilation=2), K.WEIGHT,
     "kernel turned round"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "module", "x", "other", "kind", "text"), LAYERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_layer_is_computed_again(tmp_path, name, module, x, other, kind, text):
    before, legacy = layer_of(module, x, name)
    with torch.no_grad():
        said = explained(tmp_path, legacy, other(x), name, before)
    assert said and said[0][0] == kind and text in said[0][1], said


@pytest.mark.parametrize(("change", "text"), [
    (lambda w: dict(out_proj_weight=w["out_proj_weight"].view(16, 4, 4).flip(1).reshape(16, 16)), "heads in reverse order"),
    (lambda w: dict(in_proj_weight=torch.cat([w["in_proj_weight"][:16] * 2, w["in_proj_weight"][16:]])), "not scaled"),
])  # fmt: skip
@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
def test_attention_is_computed_again(tmp_path, change, text, masked):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    inputs = dict(query=drawn(2, 5, 16), key=drawn(2, 7, 16, seed=1), value=drawn(2, 7, 16, seed=2))
    before = [Rec("param", f"attn.{key}", value, phase="weights") for key, value in attention.state_dict().items()]
    before += [Rec("module_in", "attn", value, slot=slot) for slot, value in inputs.items()]
    mask = {}
    if masked:  # of each head of each image
        mask = dict(attn_mask=drawn(8, 5, 7, seed=3) > 0.5)
        before.append(Rec("module_in", "attn", mask["attn_mask"], slot="attn_mask"))
    asked = dict(
        embed_dim_to_check=16, num_heads=4, in_proj_weight=attention.in_proj_weight, in_proj_bias=attention.in_proj_bias,
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0, out_proj_weight=attention.out_proj.weight,
        out_proj_bias=attention.out_proj.bias, training=False,
    )  # fmt: skip
    first = {name: value.transpose(0, 1) for name, value in inputs.items()}
    with torch.no_grad():
        legacy = attention(**inputs, **mask)[0]
        new = F.multi_head_attention_forward(**first, **{**asked, **change(asked), **mask})[0].transpose(0, 1)
    said = explained(tmp_path, legacy, new, "attn", before, slot="0")
    assert said[0][0] == K.ATTENTION and text in said[0][1], said


def test_a_missing_residual_is_said(tmp_path):
    x, body = drawn(2, 6, 8, seed=3), drawn(2, 6, 8, seed=4)
    before = [Rec("module_in", "part", x, slot="x"), Rec("module_out", "part.ffn", body, scope="part")]
    said = explained(tmp_path / "sum", body + x, body, before=before)
    assert said[0][0] == K.RESIDUAL and "input `x` is the legacy side's" in said[0][1], said
    assert explained(tmp_path / "activation", (body + x).relu(), body.relu(), before=before)[0] == (
        K.RESIDUAL, "ReLU of the sum with its input `x` is the legacy side's: the new side does not add it"
    )  # fmt: skip


def test_a_module_that_gives_back_what_it_is_given_is_told(tmp_path):
    given = drawn(2, 6, 8, seed=3)
    said = explained(tmp_path, X, given, before=[Rec("module_in", "part", given, slot="x")])
    assert said[0] == (K.OTHER_RECORD, "the legacy side's input `x` of the same call")


def test_another_record_is_named(tmp_path):
    one, two = drawn(4, 4), drawn(4, 4, seed=1)
    legacy = [Rec("module_out", f"layers.{i}", value) for i, value in enumerate((one, two))]
    new = [Rec("module_out", f"layers.{i}", value) for i, value in enumerate((two, one))]
    found = judged(tmp_path, legacy, new).explanation.diagnoses
    assert found[0].kind == K.OTHER_RECORD and "output of `layers.1`" in found[0].text
    assert "the other way round" in found[0].text and found[0].residual == 0.0


@pytest.mark.parametrize(("change", "text"), [
    (lambda x: x[0, 3, 2].add_(1), "at [0, 3, 2]"),
    (lambda x: x[1].mul_(0.9).add_(0.1 * drawn(6, 8, seed=7)), "index 1 of axis 0"),
    (lambda x: x[:, 4:].add_(drawn(2, 2, 8, seed=7)), "index 4 and later of axis 1"),
    (lambda x: x[0, 1].fill_(float("nan")), "NaN on one side only: 8 of 96 elements, index 0 of axis 0 and index 1"),
])  # fmt: skip
def test_the_place_is_said(tmp_path, change, text):
    new = X.clone()
    change(new)
    said = explained(tmp_path, X, new)
    assert said[-1][0].is_place and text in said[-1][1], said


def test_a_factor_is_found_over_the_calls_of_a_loss(tmp_path):
    values = [0.3, 0.7, 1.9, 0.45]
    legacy = [Rec("module_out", "loss", value, call=call) for call, value in enumerate(values)]
    new = [Rec("module_out", "loss", 0.5 * value, call=call) for call, value in enumerate(values)]
    found = judged(tmp_path, legacy, new).explanation.diagnoses
    assert found[0].kind == K.FACTOR and "times 0.5 in 4 calls" in found[0].text


def test_half_a_gradient_is_said(tmp_path):
    said = explained(tmp_path, X, X * 0.5, kind="grad", name="part.weight")
    assert said[0] == (K.GRADIENT, "the legacy side's numbers times 0.5")


def of_a_sketch(folder, legacy, new, name="part", before=(), others=()):
    """Return what is said of a record, of whose legacy side there is a sketch only."""
    records = [*before, Rec("module_out", name, new.double())]
    trace = write_trace(folder, *(Rec(**{**vars(one), "values": one.tensor.double()}) for one in records), classes=(name,))
    pairs = [Comparison(Pair(one, one, one.scope), True, True, None) for one in trace.records]
    last = trace.records[-1]
    own = Comparison(Pair(replace(last, shape=tuple(legacy.shape)), last), False, False, None)
    target = Target(sketch(legacy.double()).numpy(), lambda tensor: sketch(tensor.contiguous()).numpy(), lambda: others)
    classes = {}, trace.coverage["classes"]
    return [(one.kind, one.text) for one in diagnosed(Scene(trace, trace, [*pairs[:-1], own], own, classes, target=target))]


@pytest.mark.parametrize(
    ("new", "kind", "text"),
    [
        (EXACT.flip(-1), K.PERMUTATION, "along axis 2: in reverse order"),
        (EXACT.roll(1, 1), K.PERMUTATION, "the 6 are rolled by 1"),
        (EXACT.view(2, 6, 4, 2).transpose(2, 3).reshape(X.shape), K.PERMUTATION, "4 blocks of 2 taken in turn"),
        (EXACT * 0.75, K.FACTOR, "times 0.75"),
        (EXACT - 0.5, K.OFFSET, "minus 0.5"),
        (-EXACT, K.SIGN, "other sign"),
        (EXACT.half(), K.PRECISION, "rounded to fp16"),
        (torch.ones_like(EXACT), K.CONSTANT, "is 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sketch_is_enough_to_say_a_difference(tmp_path, new, kind, text):
    said = of_a_sketch(tmp_path, EXACT, new.contiguous())
    assert said and said[0][0] == kind and text in said[0][1], said


@pytest.mark.parametrize("seed", range(3))
def test_a_sketch_of_something_else_says_nothing(tmp_path, seed):
    assert of_a_sketch(tmp_path, X, X + 1e-4 * drawn(2, 6, 8, seed=10 + seed)) == []
    assert of_a_sketch(tmp_path / "other", X, drawn(2, 6, 8, seed=20 + seed)) == []


@pytest.mark.parametrize("number", [0, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15])
def test_a_layer_is_computed_again_for_a_sketch(tmp_path, number):
    name, module, x, other, kind, text = LAYERS[number]
    with torch.no_grad():
        before, _ = layer_of(module, x, name)
        module.double()
        try:
            legacy = module(x.double())
            # functions of the module's parameters compute in float64 now
            new = other(x.double())
        finally:
            module.float()
        said = of_a_sketch(tmp_path, legacy, new, name, before)
    assert said and said[0][0] == kind, (said, text)


def test_twice_its_input_is_no_residual(tmp_path):
    x = drawn(2, 6, 8, seed=3)
    said = explained(tmp_path, x, 2 * x, before=[Rec("module_in", "part", x, slot="x")])
    assert said == [(K.FACTOR, "the legacy side's numbers times 2")]
