"""Bounds that are exchanged, terms of the other sign, one number for many, rows left out, what a sigmoid was given."""

import pytest
import torch

from converters.rules.mapping import Keep, Mapping
from legacy_adapters.family import Padding
from parity.diagnosis.kinds import DiagnosisKind as K

from .synthetic import Rec, judged
from .test_diagnosis import X, drawn, explained

BOXES = 3 * drawn(40, 4, seed=5)
WIDE, HIGH = torch.tensor([1.0, 9.0, 9.0, 9.0]), torch.tensor([9.0, 1.5, 9.0, 9.0])
LOGITS = 2 * drawn(200, seed=6) - 2
MASK = drawn(12, 30, seed=7) > 0


@pytest.mark.parametrize(("legacy", "new", "kind", "text"), [
    (BOXES.clamp(max=WIDE), BOXES.clamp(max=HIGH), K.CLAMP,
     "at index 0 the legacy side has none above 1, at index 1 the new side has none above 1.5"),
    (MASK, MASK & (torch.arange(30) % 2 == 0), K.REPLACED, "the new side has False"),
    (X, X * (X < 0.5), K.REPLACED, "the new side has 0"),
    (BOXES[[0, 3, 4, 9, 20]], BOXES, K.SHAPE, "the legacy side has 5 of the new side's 40 along axis 0, in the same order"),
    (LOGITS.sigmoid(), LOGITS.half().float().sigmoid(), K.PRECISION, "the sigmoid of what the legacy side has before it"),
    (LOGITS.bfloat16().float().sigmoid(), LOGITS.sigmoid(), K.PRECISION, "rounded to bf16"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_more_is_said(tmp_path, legacy, new, kind, text):
    found = [one for one in explained(tmp_path, legacy, new.contiguous()) if not one[0].is_place]
    assert [one for one, _ in found] == [kind] and text in found[0][1], found


NOTHING = {
    "bounds and something else": (BOXES.clamp(max=WIDE), BOXES.clamp(max=HIGH) + 1e-3 * drawn(40, 4, seed=8)),
    "one number beyond each bound": (
        torch.stack([X[0, 0].clamp(max=X[0, 0].sort().values[-2]), X[0, 1]], 1),
        torch.stack([X[0, 0], X[0, 1].clamp(max=X[0, 1].sort().values[-2])], 1)),
    "masks both ways": (MASK, MASK ^ (torch.arange(30) % 2 == 0)),
    "few in place of few": (X, X.index_fill(2, torch.tensor([3]), 0.5)),
    "rows in another order": (BOXES[[4, 3, 9, 0]], BOXES[:20]),
    "rows that are alike": (BOXES[:1].expand(5, 4).contiguous(), BOXES[:1].expand(9, 4).contiguous()),
    "a sigmoid of noise": (LOGITS.sigmoid(), (LOGITS + 1e-3 * drawn(200, seed=9)).sigmoid()),
    "a sigmoid of a grid": (LOGITS.sigmoid(), ((LOGITS * 64).round() / 64).sigmoid()),
    "a sigmoid of few numbers": (LOGITS[:4].sigmoid(), LOGITS[:4].half().float().sigmoid()),
    "a sigmoid of large numbers": ((LOGITS + 14).sigmoid(), (LOGITS + 14).half().float().sigmoid()),
}


@pytest.mark.parametrize("case", NOTHING, ids=lambda case: case.replace(" ", "-"))
def test_what_looks_like_it_is_not_said(tmp_path, case):
    kinds = [kind for kind, _ in explained(tmp_path, *NOTHING[case])]
    assert not {K.CLAMP, K.REPLACED, K.PRECISION, K.PERMUTATION} & {*kinds}, kinds
    assert K.SHAPE not in kinds or "alike" in case  # of equal rows the first and the last are the same


@pytest.mark.parametrize("under", [lambda x: x, torch.sigmoid], ids=["sum", "sigmoid"])
def test_a_term_of_the_other_sign_is_told(tmp_path, under):
    x, body = drawn(2, 6, 8, seed=3), drawn(2, 6, 8, seed=4)
    before = [Rec("module_in", "part", x, slot="x"), Rec("module_out", "part.ffn", body, scope="part")]
    found = explained(tmp_path / "one", under(0.5 * x + body), under(0.5 * x - body), before=before)
    assert found[0][0] == K.SIGN and "the new side subtracts the output of `part.ffn`" in found[0][1], found
    for name, new in (("double", 2 * body), ("none", 0 * body), ("noise", -body + 0.01 * x.flip(0)), ("part", -body * (body > 0))):
        said = explained(tmp_path / name, under(0.5 * x + body), under(0.5 * x + new), before=before)
        assert K.SIGN not in [kind for kind, _ in said], (name, said)


def test_a_term_of_one_image_is_told_of_a_decision(tmp_path):
    given, delta = drawn(3, 20, 4, seed=3), drawn(3, 20, 4, seed=4)
    before = [Rec("module_out", "net.branch", delta, scope="net"), Rec("module_in", "net", given, slot="x")]
    sides = [(given[1] + sign * delta[1]).sigmoid() for sign in (1, -1)]
    found = explained(tmp_path, *sides, "choose", before, "basis", slot="boxes", scope="net")
    assert found[0][0] == K.SIGN and "`net.branch`" in found[0][1], found


PADDED = torch.arange(6) >= torch.tensor([[4], [3]])  # [2, 6] of two images with padding


@pytest.mark.parametrize(("change", "says"), [
    (PADDED[..., None] * 1.0, "only at padded positions, where there is no image"),
    ((torch.arange(6) > 2)[:, None] * 1.0, "only index 3 and later of axis 1 (48 of 96 elements)"),
])  # fmt: skip
def test_a_difference_of_padding_alone_is_told_as_such(tmp_path, change, says):
    padding = Padding("part", mask="part", slot="mask", reason="nothing reads it")
    mask = Rec("module_in", "part", PADDED, "mask")
    sides = [[mask, Rec("module_out", "part", values)] for values in (X, X + change * X)]
    verdict = judged(tmp_path, *sides, mapping=Mapping("toy", (Keep("**"),), paddings=(padding,)))
    found = [(one.kind, one.text) for one in verdict.explanation.diagnoses if one.kind.is_place]
    assert found[0] == (K.PLACE, says), found
