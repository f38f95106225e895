"""The models of the family; imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddq_port import configs
from legacy_adapters.family import Rehearsal, Side, Variant
from legacy_adapters.ground.packages import MMDET
from legacy_adapters.targets import co_detr
from legacy_adapters.targets.repo2 import rehearsing

_FOLDER = Path(__file__).parent
NEW = Side("ddq_port", Path(co_detr.__file__).parent / "new.py", packages=("ddq_port",), needs=MMDET)

#: No image is the largest, the first neither the highest nor the widest; no side is a multiple of a stride.
_SMALL_SIZES = ((93, 115), (131, 121), (77, 157))
_FULL_SIZES = ((193, 227), (231, 211), (165, 249))

_DINO, _SWIN = "co_dino/co_dino_5scale_r50_1x_coco", "co_dino/co_dino_5scale_swin_large_1x_coco"
_DEFORMABLE = "co_deformable_detr/co_deformable_detr_r50_1x_coco"
_RESNET = "without_downloads"


def _variant(
    name: str, legacy: str, new: str, sizes: tuple[tuple[int, int], ...], *overrides: str, denoising: bool = True
) -> Variant:
    """Return a model.

    Args:
        name: of it.
        legacy: its config in the checkout, below ``projects/configs``, without ``.py``.
        new: its config here, without ``.py``.
        sizes: (h, w) in pixels of each image of the default batch.
        overrides: names of what is merged into the official config, in order.
        denoising: it has denoising queries: a Co-DINO.
    """
    files = [str(_FOLDER / "configs" / "legacy" / f"{one}.py") for one in overrides]
    return Variant(
        name,
        legacy=dict(config=f"projects/configs/{legacy}.py", overrides=files),
        new=dict(config=str(configs.path(f"co_detr/{new}"))),
        sizes=sizes,
        settings=dict(denoising=denoising),
    )


VARIANTS = (
    _variant("co_dino_5scale_r50", _DINO, "co-dino-5scale_r50_8xb2-12e_coco", _FULL_SIZES, _RESNET),
    _variant("co_dino_4scale_r50", _DINO, "co-dino-4scale_r50_8xb2-12e_coco", _FULL_SIZES, _RESNET, "co_dino_4scale"),
    _variant(
        "co_deformable_r50", _DEFORMABLE, "co-deformable-detr_r50_8xb2-12e_coco", _FULL_SIZES, _RESNET, denoising=False
    ),
    _variant(
        "co_deformable_swin_t", "co_deformable_detr/co_deformable_detr_swin_tiny_1x_coco",
        "co-deformable-detr_swin-t_8xb2-12e_coco", _FULL_SIZES, "swin_pretrained", denoising=False,
    ),  # fmt: skip
    _variant("co_dino_5scale_swin_l", _SWIN, "co-dino-5scale_swin-l_16xb1-12e_coco", _FULL_SIZES, "swin_pretrained"),
    _variant("tiny_co_dino", _DINO, "co-dino-5scale_tiny", _SMALL_SIZES, "tiny_co_dino"),
    _variant(
        "tiny_co_deformable",
        _DEFORMABLE,
        "co-deformable-detr_tiny",
        _SMALL_SIZES,
        "tiny_co_deformable",
        denoising=False,
    ),
    _variant("tiny_co_dino_swin", _SWIN, "co-dino-5scale_tiny-swin", _SMALL_SIZES, "tiny_co_dino", "tiny_co_dino_swin"),
    _variant("tiny_co_dino_lsj", _DINO, "co-dino-5scale_tiny-lsj", _SMALL_SIZES, "tiny_co_dino", "lsj"),
)

_SMALL_AND_TRAINED = _variant(
    "tiny_shapes", _DINO, "co-dino-4scale_tiny_shapes", _SMALL_SIZES, "tiny_co_dino", "co_dino_4scale", "tiny_shapes"
)
_LEGACY = _SMALL_AND_TRAINED.legacy
#: The training of both sides on drawn images.
REHEARSALS = (
    Rehearsal(
        "tiny_co_dino",
        replace(_SMALL_AND_TRAINED, legacy=dict(_LEGACY, overrides=[rehearsing.SHAPES, *_LEGACY["overrides"]])),
        rehearsing.STEPS,
        rehearsing.settings,
        expected_ap=0.5,
    ),
)
