"""How DETR and Deformable DETR of MMDetection 2.x are called in 3.x.

In 2.x the whole transformer is a part of the head, in 3.x it is the detector's. No value changes.
To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Keep, Rename, Rule

_TRANSFORMER = "bbox_head.transformer"
#: Encoder and decoder, the same in both.
_LAYERS = (
    Rename(f"{_TRANSFORMER}.encoder.layers.*.attentions.0.**", "encoder.layers.*.self_attn.**"),
    Rename(f"{_TRANSFORMER}.encoder.layers.*.ffns.0.**", "encoder.layers.*.ffn.**"),
    Rename(f"{_TRANSFORMER}.encoder.layers.*.norms.*.*", "encoder.layers.*.norms.*.*"),
    Rename(f"{_TRANSFORMER}.decoder.layers.*.attentions.0.**", "decoder.layers.*.self_attn.**"),
    Rename(f"{_TRANSFORMER}.decoder.layers.*.attentions.1.**", "decoder.layers.*.cross_attn.**"),
    Rename(f"{_TRANSFORMER}.decoder.layers.*.ffns.0.**", "decoder.layers.*.ffn.**"),
    Rename(f"{_TRANSFORMER}.decoder.layers.*.norms.*.*", "decoder.layers.*.norms.*.*"),
)
DETR: tuple[Rule, ...] = (
    Keep("backbone.**"),
    Rename("bbox_head.input_proj.*", "neck.convs.0.conv.*"),
    Rename("bbox_head.query_embedding.weight", "query_embedding.weight"),
    *_LAYERS,
    Rename(f"{_TRANSFORMER}.decoder.post_norm.*", "decoder.post_norm.*"),
    Keep("bbox_head.fc_cls.*"),
    Keep("bbox_head.reg_ffn.**"),
    Keep("bbox_head.fc_reg.*"),
)
#: Of all three forms: one without refinement saves its only branch once for each layer, on both sides.
DEFORMABLE_DETR: tuple[Rule, ...] = (
    Keep("backbone.**"),
    Keep("neck.**"),
    Rename("bbox_head.query_embedding.weight", "query_embedding.weight"),
    Rename(f"{_TRANSFORMER}.level_embeds", "level_embed"),
    Rename(f"{_TRANSFORMER}.reference_points.*", "reference_points_fc.*"),
    Rename(f"{_TRANSFORMER}.enc_output.*", "memory_trans_fc.*"),
    Rename(f"{_TRANSFORMER}.enc_output_norm.*", "memory_trans_norm.*"),
    Rename(f"{_TRANSFORMER}.pos_trans.*", "pos_trans_fc.*"),
    Rename(f"{_TRANSFORMER}.pos_trans_norm.*", "pos_trans_norm.*"),
    *_LAYERS,
    Keep("bbox_head.cls_branches.*.*"),
    Keep("bbox_head.reg_branches.*.*.*"),
)
#: Rules by what the new config calls the detector, or its head.
TABLES = {
    "DETR": DETR,
    "DETRHead": DETR,
    "DeformableDETR": DEFORMABLE_DETR,
    "DeformableDETRHead": DEFORMABLE_DETR,
}
