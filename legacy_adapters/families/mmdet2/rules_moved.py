"""How parts of some detectors of MMDetection 2.x are called in 3.x, where they have other names. No value changes.

To read beside a state_dict listing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.rules.mapping import Keep, Rename, Rule

_TRUNK = (Keep("backbone.**"), Keep("neck.**"))
#: The head of a detector that gives proposals and nothing else.
PROPOSALS: tuple[Rule, ...] = (*_TRUNK, Rename("rpn_head.**", "bbox_head.**"))
#: YOLACT learns a semantic segmentation besides, with a head of its own in 2.x.
YOLACT: tuple[Rule, ...] = (
    *_TRUNK,
    Keep("bbox_head.**"),
    Keep("mask_head.protonet.**"),
    Rename("segm_head.**", "mask_head.segm_branch.**"),
)
_HEAD = "panoptic_head"
#: Where layers of transformers stand in MaskFormer and Mask2Former.
ENCODER, DECODER = f"{_HEAD}.pixel_decoder.encoder", f"{_HEAD}.transformer_decoder"
_PIXELS = (
    "input_convs", "lateral_convs", "output_convs", "mask_feature", "level_encoding", "encoder_in_proj", "encoder_out_proj",
)  # fmt: skip
_QUERIES = ("query_embed", "query_feat", "level_embed", "cls_embed", "mask_embed", "decoder_input_projs")
_OF_MASKS = (
    *_TRUNK,
    *(Keep(f"{_HEAD}.pixel_decoder.{part}.**") for part in _PIXELS),
    *(Keep(f"{_HEAD}.{part}.**") for part in _QUERIES),
    Rename(f"{ENCODER}.layers.*.attentions.0.**", f"{ENCODER}.layers.*.self_attn.**"),
    Rename(f"{ENCODER}.layers.*.ffns.0.**", f"{ENCODER}.layers.*.ffn.**"),
    Keep(f"{ENCODER}.layers.*.norms.*.*"),
    Rename(f"{DECODER}.layers.*.ffns.0.**", f"{DECODER}.layers.*.ffn.**"),
    Keep(f"{DECODER}.layers.*.norms.*.*"),
    Keep(f"{DECODER}.post_norm.*"),
)
MASKFORMER: tuple[Rule, ...] = (
    *_OF_MASKS,
    Rename(f"{DECODER}.layers.*.attentions.0.**", f"{DECODER}.layers.*.self_attn.**"),
    Rename(f"{DECODER}.layers.*.attentions.1.**", f"{DECODER}.layers.*.cross_attn.**"),
)
#: Its queries look at the image first.
MASK2FORMER: tuple[Rule, ...] = (
    *_OF_MASKS,
    Rename(f"{DECODER}.layers.*.attentions.0.**", f"{DECODER}.layers.*.cross_attn.**"),
    Rename(f"{DECODER}.layers.*.attentions.1.**", f"{DECODER}.layers.*.self_attn.**"),
)
_TABLES = dict(RPN=PROPOSALS, YOLACT=YOLACT, MaskFormer=MASKFORMER, Mask2Former=MASK2FORMER)


def table_of(model: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules of a model by its config of 3.x; none if all its names are those of 2.x."""
    kind = model.get("type")
    return _TABLES.get(getattr(kind, "__name__", str(kind)).rpartition(".")[2], ())
