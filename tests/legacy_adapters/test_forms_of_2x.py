"""Which tensors of MMDetection 2.x's transformers have their images second, where 3.x has them first."""

from types import SimpleNamespace

import pytest

from legacy_adapters.families.mmdet2 import forms

STACKS = [
    (forms._LAYOUT, "bbox_head.transformer.decoder"),
    (forms._OF_MASKS, "panoptic_head.transformer_decoder"),
]


def form_of(listed, name, slot):
    record = SimpleNamespace(name=name, slot=slot, kind="module_in", phase="predict", scope="", call=0)
    return next(form for form in listed if form.covers(record))


@pytest.mark.parametrize("listed, stack", STACKS)
@pytest.mark.parametrize("slot, permute", [("query", (1, 0, 2)), ("key_pos", (1, 0, 2)), ("attn_masks.0", ())])
def test_masks_of_attention_have_queries_second_on_both_sides(listed, stack, slot, permute):
    assert form_of(listed, f"{stack}.layers.0", slot).permute == permute
