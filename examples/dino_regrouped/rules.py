"""How the weights of mmdet's DINO are called in the port."""

from converters.rules.mapping import Keep, Rename
from legacy_adapters.family import LINEAR, NORMAL, PRIOR

RULES = (
    Keep("backbone.**"),
    Keep("neck.**"),
    Keep("level_embed"),
    Rename("encoder.**", "transformer.encoder.**"),
    Rename("decoder.**", "transformer.decoder.**"),
    Rename("query_embedding.weight", "queries.content.weight"),
    Rename("dn_query_generator.**", "queries.denoising.**"),
    Rename("memory_trans_fc.*", "memory.projection.*"),
    Rename("memory_trans_norm.*", "memory.norm.*"),
    Rename("bbox_head.cls_branches.*.*", "bbox_head.classes.*.*"),
    Rename("bbox_head.reg_branches.*.*.*", "bbox_head.boxes.*.*.*"),
)
# patterns that are good for both sides
CLASS_ROWS = {
    "bbox_head.cls_branches.*.weight": LINEAR,
    "bbox_head.cls_branches.*.bias": PRIOR,
    "dn_query_generator.label_embedding.weight": NORMAL,
    "bbox_head.classes.*.weight": LINEAR,
    "bbox_head.classes.*.bias": PRIOR,
    "queries.denoising.label_embedding.weight": NORMAL,
}
