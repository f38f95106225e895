"""This toolkit's DDQ-DETR: what the families that are carried to it have in common.

Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from ddq_port import configs
from legacy_adapters.family import NEW, Draw, Exclusion, Seeding, Side, Variant
from legacy_adapters.ground.packages import MMDET

from .rules import CLASS_ROWS, MARKERS, rules

__all__ = ["CLASS_ROWS", "LAYOUTS", "MARKERS", "OWN_RECORDS", "SEEDING", "SIDE", "rules", "variants"]

_FOLDER = Path(__file__).parent
LAYOUTS = _FOLDER / "layouts"
SIDE = Side("ddq_port", _FOLDER / "new.py", packages=("ddq_port",), needs=MMDET)

#: No image is the largest, the first neither the highest nor the widest; no side is a multiple of what tokens cover.
_TINY = ((93, 115), (131, 121), (77, 157))
_FULL = ((331, 397), (401, 467), (289, 499))
#: Of models that need more memory for a pixel; no default batch takes 16 GB.
_FIVE_SCALES = ((199, 261), (267, 243), (179, 283))
_SWIN = ((287, 343), (347, 405), (251, 433))

_FOUR = "ddq-detr-4scale_r50_8xb2-12e_coco"
#: Variant -> the config it has, or is made from, in a legacy code base; sizes of its images; decoder layers.
_VARIANTS = {
    "r50_4scale": (_FOUR, _FULL, 6),
    "r50_5scale": ("ddq-detr-5scale_r50_8xb2-12e_coco", _FIVE_SCALES, 6),
    "swinl_4scale": ("ddq-detr-4scale_swinl_8xb2-30e_coco", _SWIN, 6),
    "tiny_4scale": (_FOUR, _TINY, 3),
    "tiny_5scale": ("ddq-detr-5scale_r50_8xb2-12e_coco", _TINY, 3),
    "tiny_swinl": ("ddq-detr-4scale_swinl_8xb2-30e_coco", _TINY, 3),
    "tiny_r18": (_FOUR, _TINY, 3),
    # behind tiny_4scale: a checkpoint of any other number of classes fits both alike, and the first is reported
    "tiny_1class": (_FOUR, _TINY, 3),
}

SEEDING = Seeding(
    draws=(
        Draw("*sampling_offsets.bias*", 2.0),
        Draw("*cls_branches*.bias", 0.1, -2.0),
        # boxes grow from layer to layer until some overlap enough for the selection to drop them
        Draw("*reg_branches*", 0.1, (0.0, 0.0, 2.0, 2.0), shape=(4,)),
    ),
    # what ends a branch of the transformer is damped
    gains={"*output_proj.weight": 0.5, "*ffn.layers.1.weight": 0.5},
)

#: What only this model records.
OWN_RECORDS = (
    Exclusion(NEW, "module_out", "decoder", "2.*", "masks of distinct queries are an output here, a shared dict there"),
    Exclusion(
        NEW, "module_in", "decoder", "self_attn_mask", "given at inference too; there the decoder makes it itself"
    ),
)


def variants(folder: str) -> tuple[Variant, ...]:
    """Return the models, to be built from the configs in a folder of a legacy code base."""
    return tuple(
        Variant(
            name,
            legacy=dict(config=f"{folder}/{config}.py", overrides=_overrides(configs.VARIANTS[name], config)),
            new=dict(config=str(configs.path(configs.VARIANTS[name]))),
            sizes=sizes,
            settings=dict(decoder_layers=layers),
        )
        for name, (config, sizes, layers) in _VARIANTS.items()
    )


def _overrides(own: str, legacy: str) -> str:
    """Return our config of a variant that is merged into a legacy config of another name; empty for one of this name."""
    return "" if own == legacy else str(configs.path(own))
