"""The rules from the layout that DDQ-DETR has in legacy code to that of this toolkit.

To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import DropDuplicateOf, Keep, Rename, Rule
from legacy_adapters.family import LINEAR, NORMAL, PRIOR, Variant

CLASS_ROWS = {
    "bbox_head.cls_branches.*.weight": LINEAR,
    "bbox_head.cls_branches.*.bias": PRIOR,
    "bbox_head.aux_cls_branches.*.weight": LINEAR,
    "bbox_head.aux_cls_branches.*.bias": PRIOR,
    "dn_query_generator.label_embedding.weight": NORMAL,
}
MARKERS = ("query_map.weight", "bbox_head.aux_cls_branches.0.weight", "decoder.norm.weight")


def rules(variant: Variant) -> tuple[Rule, ...]:
    """List the rules for a model.

    The legacy head keeps n + 2 prediction branches in one list: 0..n-1 decoder, n encoder (distinct queries), n+1
    encoder (dense queries). The new head has the dense branch where it belongs, last in the auxiliary list.
    """
    n = variant.settings["decoder_layers"]
    main, aux = range(n + 1), range(n)
    return (
        Keep("backbone.**"),
        Keep("neck.**"),
        Keep("encoder.**"),
        Keep("decoder.layers.**"),
        Keep("decoder.norm.*"),
        Keep("decoder.ref_point_head.**"),
        Keep("level_embed"),
        Keep("memory_trans_fc.*"),
        Keep("memory_trans_norm.*"),
        Keep("query_map.*"),
        Keep("dn_query_generator.label_embedding.weight"),
        *(Keep(f"bbox_head.cls_branches.{i}.*") for i in main),
        *(Keep(f"bbox_head.reg_branches.{i}.*.*") for i in main),
        *(Keep(f"bbox_head.aux_cls_branches.{i}.*") for i in aux),
        *(Keep(f"bbox_head.aux_reg_branches.{i}.*.*") for i in aux),
        Rename(f"bbox_head.cls_branches.{n + 1}.*", f"bbox_head.aux_cls_branches.{n}.*"),
        Rename(f"bbox_head.reg_branches.{n + 1}.*.*", f"bbox_head.aux_reg_branches.{n}.*.*"),
        DropDuplicateOf(
            "decoder.aux_reg_branches.*.*.*",
            twin="bbox_head.aux_reg_branches.*.*.*",
            reason="training sets the head's list as an attribute of the decoder, which saves it twice",
        ),
    )
