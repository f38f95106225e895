"""How DETR and Deformable DETR of MMDetection 2.x are called in 3.x.

In 2.x the whole transformer is a part of the head, in 3.x it is the detector's. No value changes.
To read beside a state_dict listing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.rules.mapping import Keep, Rename, Rule
from legacy_adapters.family import LEGACY, NEW, Alias, Exclusion, Padding

#: Where the transformer stands in 2.x.
TRANSFORMER = "bbox_head.transformer"
#: Encoder and decoder, the same in both.
_LAYERS = (
    Rename(f"{TRANSFORMER}.encoder.layers.*.attentions.0.**", "encoder.layers.*.self_attn.**"),
    Rename(f"{TRANSFORMER}.encoder.layers.*.ffns.0.**", "encoder.layers.*.ffn.**"),
    Rename(f"{TRANSFORMER}.encoder.layers.*.norms.*.*", "encoder.layers.*.norms.*.*"),
    Rename(f"{TRANSFORMER}.decoder.layers.*.attentions.0.**", "decoder.layers.*.self_attn.**"),
    Rename(f"{TRANSFORMER}.decoder.layers.*.attentions.1.**", "decoder.layers.*.cross_attn.**"),
    Rename(f"{TRANSFORMER}.decoder.layers.*.ffns.0.**", "decoder.layers.*.ffn.**"),
    Rename(f"{TRANSFORMER}.decoder.layers.*.norms.*.*", "decoder.layers.*.norms.*.*"),
)
DETR: tuple[Rule, ...] = (
    Keep("backbone.**"),
    Rename("bbox_head.input_proj.*", "neck.convs.0.conv.*"),
    Rename("bbox_head.query_embedding.weight", "query_embedding.weight"),
    *_LAYERS,
    Rename(f"{TRANSFORMER}.decoder.post_norm.*", "decoder.post_norm.*"),
    Keep("bbox_head.fc_cls.*"),
    Keep("bbox_head.reg_ffn.**"),
    Keep("bbox_head.fc_reg.*"),
)
#: Before version 2 of its state dict; the version itself stands where most files lose it.
DETR_FORMER: tuple[Rename, ...] = (
    Rename(f"{TRANSFORMER}.*.layers.*.self_attn.**", f"{TRANSFORMER}.*.layers.*.attentions.0.**"),
    Rename(f"{TRANSFORMER}.*.layers.*.multihead_attn.**", f"{TRANSFORMER}.*.layers.*.attentions.1.**"),
    Rename(f"{TRANSFORMER}.*.layers.*.ffn.**", f"{TRANSFORMER}.*.layers.*.ffns.0.**"),
    Rename(f"{TRANSFORMER}.decoder.norm.*", f"{TRANSFORMER}.decoder.post_norm.*"),
)
_DEFORMABLE = (
    Keep("backbone.**"),
    Keep("neck.**"),
    Rename(f"{TRANSFORMER}.level_embeds", "level_embed"),
    *_LAYERS,
    # without refinement there is one branch, saved once for each layer, on both sides
    Keep("bbox_head.cls_branches.*.*"),
    Keep("bbox_head.reg_branches.*.*.*"),
)
DEFORMABLE_DETR: tuple[Rule, ...] = (
    *_DEFORMABLE,
    Rename("bbox_head.query_embedding.weight", "query_embedding.weight"),
    Rename(f"{TRANSFORMER}.reference_points.*", "reference_points_fc.*"),
)
TWO_STAGE: tuple[Rule, ...] = (
    *_DEFORMABLE,
    Rename(f"{TRANSFORMER}.enc_output.*", "memory_trans_fc.*"),
    Rename(f"{TRANSFORMER}.enc_output_norm.*", "memory_trans_norm.*"),
    Rename(f"{TRANSFORMER}.pos_trans.*", "pos_trans_fc.*"),
    Rename(f"{TRANSFORMER}.pos_trans_norm.*", "pos_trans_norm.*"),
)


def table_of(model: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules of a model by its config of 3.x; none if it is neither DETR nor Deformable DETR."""
    kind = model.get("type")
    kind = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
    if kind == "DeformableDETR":
        return TWO_STAGE if model.get("as_two_stage") else DEFORMABLE_DETR
    return DETR if kind == "DETR" else ()


#: Modules without parameters. In 2.x a feed-forward network holds its activation twice, and is asked for the first.
ALIASES = (
    Alias("bbox_head.positional_encoding", "positional_encoding"),
    Alias("bbox_head.reg_ffn.activate", "bbox_head.reg_ffn.layers.0.1"),
    Alias(f"{TRANSFORMER}.*.layers.*.ffns.0.activate", "*.layers.*.ffn.layers.0.1"),
)
_IN_THE_HEAD = "the transformer is within the head in 2.x, and the detector's in 3.x, whose head is given hidden states"
METAS = "a head gets it with the data samples in 3.x"
_NO_MASK = "a mask that masks nothing is left out by 3.x"
EXCLUSIONS = (
    Exclusion(LEGACY, "*", "bbox_head", "feats.*", _IN_THE_HEAD),
    Exclusion(LEGACY, "*", "bbox_head", "mlvl_feats.*", _IN_THE_HEAD),
    Exclusion(NEW, "*", "bbox_head", "hidden_states", _IN_THE_HEAD),
    Exclusion(NEW, "*", "bbox_head", "references.*", _IN_THE_HEAD),
    Exclusion(LEGACY, "module_in", "bbox_head", "img_metas.*.scale_factor", METAS),
    # what the transformer gives as one module, less what is computed with and compared behind it
    Exclusion(LEGACY, "*", TRANSFORMER, "1", "the memory as an image, which nothing uses"),
    Exclusion(LEGACY, "*", TRANSFORMER, "4", "boxes of proposals before their sigmoid; a loss is computed with them"),
    Exclusion(LEGACY, "module_in", f"{TRANSFORMER}.encoder", "reference_points", "the encoder makes them in 3.x"),
    # of a batch without padding
    Exclusion(LEGACY, "module_in", "bbox_head.positional_encoding", "mask", _NO_MASK, zeros_only=True),
    Exclusion(NEW, "module_in", "positional_encoding", "input", _NO_MASK),
    Exclusion(LEGACY, "module_in", f"{TRANSFORMER}*", "*key_padding_mask", _NO_MASK, zeros_only=True),
)
_NO_VALUE = "attention takes no value from a token of padding, so that what is computed there stays there"
#: Of Deformable DETR, whose encoding of positions is the sine of some millions in a row or column that is all padding.
PADDINGS = (
    Padding(
        f"{TRANSFORMER}.*", mask=f"{TRANSFORMER}.encoder", slot="query_key_padding_mask",
        reason=_NO_VALUE,
    ),
    Padding("bbox_head.positional_encoding", mask="bbox_head.positional_encoding", slot="mask", reason=_NO_VALUE),
    Padding(TRANSFORMER, mask="bbox_head.positional_encoding", slot="mask", reason=_NO_VALUE),
)  # fmt: skip
