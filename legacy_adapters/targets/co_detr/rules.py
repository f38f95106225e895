"""Rules of what every layout of Co-DETR calls alike, and which tensors have rows for classes; imports no torch."""

from __future__ import annotations

from converters.rules.mapping import Drop, Keep, Rule
from legacy_adapters.family import LINEAR, NORMAL, NORMAL_0001, NORMAL_001, PRIOR, ZERO

_FEDERATED = (
    "how often each class of LVIS occurs, which a federated loss draws classes by; the losses here have no such weights"
)
#: Neck and heads, but for the embedding of denoising queries.
HEADS: tuple[Rule, ...] = (
    Keep("neck.**"),
    Keep("query_head.transformer.**"),
    Keep("query_head.downsample.*.*"),
    Keep("query_head.cls_branches.*.*"),
    Keep("query_head.reg_branches.*.*.*"),
    Drop("query_head.loss_cls.fed_loss_weight", _FEDERATED),
    Keep("rpn_head.**"),
    Keep("roi_head.*.bbox_head.shared_fcs.*.*"),
    Keep("roi_head.*.bbox_head.fc_cls.*"),
    Keep("roi_head.*.bbox_head.fc_reg.*"),
    Drop("roi_head.*.bbox_head.loss_cls.fed_loss_weight", _FEDERATED),
    Keep("bbox_head.*.cls_convs.**"),
    Keep("bbox_head.*.reg_convs.**"),
    Keep("bbox_head.*.atss_cls.*"),
    Keep("bbox_head.*.atss_reg.*"),
    Keep("bbox_head.*.atss_centerness.*"),
    Keep("bbox_head.*.scales.*.scale"),
    Drop("bbox_head.*.loss_cls.fed_loss_weight", _FEDERATED),
)
CLASS_ROWS = {
    "query_head.cls_branches.*.weight": LINEAR,
    "query_head.cls_branches.*.bias": PRIOR,
    "query_head.dn_generator.label_embedding.weight": NORMAL,
    "query_head.label_embedding.weight": NORMAL,
    # a softmax over the classes and the background, and a box for each class
    "roi_head.*.bbox_head.fc_cls.weight +1": NORMAL_001,
    "roi_head.*.bbox_head.fc_cls.bias +1": ZERO,
    "roi_head.*.bbox_head.fc_reg.weight x4": NORMAL_0001,
    "roi_head.*.bbox_head.fc_reg.bias x4": ZERO,
    "bbox_head.*.atss_cls.weight": NORMAL_001,
    "bbox_head.*.atss_cls.bias": PRIOR,
}
#: Keys that every checkpoint has, and that no related model has together: those with a ViT have another neck.
MARKERS = (
    "neck.convs.0.conv.weight",
    "query_head.cls_branches.0.weight",
    "roi_head.0.bbox_head.fc_cls.weight",
    "bbox_head.0.atss_cls.weight",
)
