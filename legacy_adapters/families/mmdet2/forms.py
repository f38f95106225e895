"""What MMDetection 2.x computes in another form than 3.x: DETR's tokens first, and images second."""

from __future__ import annotations

from legacy_adapters.family import Form, Variant

from . import rules_moved
from .model_configs import of_new
from .rules_detr import DETR, TRANSFORMER, table_of

_TURNED, _STACKED_AND_TURNED = (1, 0, 2), (0, 2, 1, 3)
_MASK = "attn_mask"  # of every head and image, or of all: [bs * num_heads, num_queries, num_keys]
#: What has its images first on both sides, within encoder and decoder: torch's attention has them second on both, and
#: attention that samples turns its tensors itself.
_ALIKE = (
    *(Form(f"{TRANSFORMER}.*", slot=f"*{slot}*") for slot in ("valid_ratios", "reference_points", _MASK)),
    *(
        Form(f"{TRANSFORMER}.*.attentions.*.{part}")
        for part in ("attn", "value_proj", "sampling_offsets", "attention_weights", "output_proj")
    ),
    Form(f"{TRANSFORMER}.decoder", slot="1"),
    Form("dropout", scope=f"{TRANSFORMER}.*.attn"),
)
_LAYOUT = (
    *_ALIKE,
    Form(f"{TRANSFORMER}.decoder", permute=_STACKED_AND_TURNED),
    Form(f"{TRANSFORMER}.encoder*", permute=_TURNED),
    Form(f"{TRANSFORMER}.decoder*", permute=_TURNED),
    Form("dropout", scope=f"{TRANSFORMER}.*", permute=_TURNED),
)
#: The same of MaskFormer and Mask2Former, whose two stacks of layers stand apart.
_OF_MASKS = (
    *(
        Form(f"{stack}.*.attentions.*.{part}")
        for stack in (rules_moved.ENCODER, rules_moved.DECODER)
        for part in ("attn", "value_proj", "sampling_offsets", "attention_weights", "output_proj")
    ),
    # 2.x has this slip of the pen
    *(Form(f"{rules_moved.ENCODER}*", slot=f"*{slot}*") for slot in ("valid_radios", "reference_points")),
    Form(f"{rules_moved.DECODER}*", slot=f"*{_MASK}*"),
    Form(f"{rules_moved.ENCODER}*", permute=_TURNED),
    Form(rules_moved.DECODER, kind="module_out", permute=_STACKED_AND_TURNED),
    Form(f"{rules_moved.DECODER}*", permute=_TURNED),
)
_LAST = "DETR of 3.x asks its head for the boxes of the last layer only; 2.x throws the others away"
_INFERENCE = ("predict", "unscaled")


def forms(variant: Variant) -> tuple[Form, ...]:
    """Return what the legacy side records in another form than a model of 3.x, by what its config says."""
    model = of_new(variant)
    table = table_of(model)
    if rules_moved.table_of(model) in (rules_moved.MASKFORMER, rules_moved.MASK2FORMER):
        return _OF_MASKS
    if not table or model.get("layout") == "sequence_first":
        return ()
    if table is DETR:
        return (*_LAYOUT, *_last_layer(model["decoder"]["num_layers"]))
    # Deformable DETR's transformer hands on what its decoder gives; that of DETR turns it
    return (Form(TRANSFORMER, slot="0", permute=_STACKED_AND_TURNED), *_LAYOUT)


def _last_layer(layers: int) -> tuple[Form, ...]:
    """Return the forms of what DETR's head computes at inference."""
    parts = [("bbox_head", "module_out"), *((f"bbox_head.{name}", "*") for name in ("fc_cls", "fc_reg", "activate"))]
    parts += [("bbox_head.reg_ffn", "*"), ("bbox_head.reg_ffn.*", "*")]
    last = (0, layers - 1, layers)
    return tuple(
        Form(name, kind=kind, phase=phase, select=last, reason=_LAST) for phase in _INFERENCE for name, kind in parts
    )
