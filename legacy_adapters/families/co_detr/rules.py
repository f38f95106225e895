"""The rules from the official layout of Co-DETR to this toolkit's.

Names are kept, but for that of the embedding of denoising queries. No value changes. To read beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Drop, Keep, Rename, Rule
from legacy_adapters.family import Variant

_FEDERATED = "how often each class of LVIS occurs, which a federated loss draws classes by; the losses here have no such weights"
_DETECTOR: tuple[Rule, ...] = (
    Keep("backbone.**"),
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
CO_DINO: tuple[Rule, ...] = (
    *_DETECTOR,
    Rename("query_head.label_embedding.weight", "query_head.dn_generator.label_embedding.weight"),
)
CO_DEFORMABLE: tuple[Rule, ...] = (*_DETECTOR, Keep("query_head.query_embedding.weight"))


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a variant."""
    return CO_DINO if variant.settings["denoising"] else CO_DEFORMABLE
