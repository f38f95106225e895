"""What one side records and the other has no twin of, each with its reason; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import LEGACY, NEW, Alias, Exclusion

_HEAD, _TRANSFORMER = "query_head", "query_head.transformer"
_META = "a head is given all meta information here, of which it reads the size alone"
_PASSED_ON = "handed on from layer to layer; the decoder, which computes with it, has it on both sides"
_UNREAD = "attention that samples has no mask; it is given that of the attention before it, and does not look at it"
_IN_PLACE = "the official code changes this output in place, so that it has no gradient of its own; that of what follows is compared"
EXCLUSIONS = (
    Exclusion(LEGACY, "module_in", _HEAD, "img_metas.*.scale_factor", _META),
    Exclusion(LEGACY, "module_in", f"{_TRANSFORMER}.encoder*", "valid_ratios", _PASSED_ON),
    Exclusion(LEGACY, "module_in", f"{_TRANSFORMER}.decoder.layers.*.attentions.1", "attn_mask", _UNREAD),
    Exclusion(NEW, "out_grad", f"{_HEAD}.reg_branches.*", "*", _IN_PLACE),
)
ALIASES = (
    # one module, which mmcv 1.x reaches under this name first
    Alias(f"{_TRANSFORMER}.*.layers.*.ffns.0.activate", f"{_TRANSFORMER}.*.layers.*.ffns.0.layers.0.1"),
)
