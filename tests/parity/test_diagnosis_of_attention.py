"""Attention whose mask is left out or whose heads change places is told; what is no such attention is left alone."""

import pytest
import torch
from torch import nn

from parity.diagnosis.kinds import DiagnosisKind as K

from .synthetic import Rec
from .test_diagnosis import drawn, explained

INPUTS = dict(query=drawn(2, 5, 16), key=drawn(2, 7, 16, seed=1), value=drawn(2, 7, 16, seed=2))
MASKS = dict(attn_mask=drawn(5, 7, seed=3) > 0.5, key_padding_mask=torch.arange(7) >= torch.tensor([[5], [4]]))


def attention_of(heads):
    torch.manual_seed(0)
    return nn.MultiheadAttention(16, heads, batch_first=True).eval()


def recorded(attention, inputs, skipped=()):
    """Return what is recorded of a call of ``attn`` before its output."""
    state = [Rec("param", f"attn.{key}", value, phase="weights") for key, value in attention.state_dict().items()]
    given = [Rec("module_in", "attn", value, slot=slot) for slot, value in inputs.items()]
    return [*(one for one in state if one.name.removeprefix("attn.") not in skipped), *given]


@pytest.mark.parametrize(("slot", "text"), [
    ("attn_mask", "attention without its mask, in place of attention of 4 heads"),
    ("key_padding_mask", "attention that sees padded keys, in place of attention of 4 heads"),
])  # fmt: skip
def test_a_mask_that_is_left_out_is_told(tmp_path, slot, text):
    attention, mask = attention_of(4), {slot: MASKS[slot]}
    with torch.no_grad():
        sides = attention(**INPUTS, **mask)[0], attention(**INPUTS)[0]
    said = explained(tmp_path, *sides, "attn", recorded(attention, {**INPUTS, **mask}), slot="0")
    assert said[0] == (K.ATTENTION, text)


@pytest.mark.parametrize(("heads", "by", "text"), [
    (2, 1, "heads in reverse order, in place of attention of 2 heads"),
    (4, 1, "heads rolled by 1, in place of attention of 4 heads"),
])  # fmt: skip
def test_heads_at_another_place_are_told(tmp_path, heads, by, text):
    attention, other = attention_of(heads), attention_of(heads)
    with torch.no_grad():
        columns = other.out_proj.weight.view(16, heads, 16 // heads)
        other.out_proj.weight.copy_(columns.roll(-by, 1).reshape(16, 16).clone())
        sides = attention(**INPUTS)[0], other(**INPUTS)[0]
    said = explained(tmp_path, *sides, "attn", recorded(attention, INPUTS), slot="0")
    assert said[0] == (K.ATTENTION, f"attention with its {text}")


@pytest.mark.parametrize(("inputs", "skipped"), [
    ({slot: value[0] for slot, value in INPUTS.items()}, ()),
    (INPUTS, ("in_proj_weight", "in_proj_bias")),
], ids=["of one image", "with projections of its own"])  # fmt: skip
def test_of_other_attention_nothing_is_told(tmp_path, inputs, skipped):
    attention = attention_of(4)
    with torch.no_grad():
        legacy = attention(**inputs)[0]
        attention.out_proj.bias.zero_(), attention.in_proj_bias.normal_()
        new = attention(**inputs)[0]
    said = explained(tmp_path, legacy, new, "attn", recorded(attention_of(4), inputs, skipped), slot="0")
    assert [one for one in said if not one[0].is_place] == []
