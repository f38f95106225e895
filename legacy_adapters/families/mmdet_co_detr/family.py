"""Co-DETR in the layout of MMDetection's `projects/CO-DETR`, carried to this toolkit's own."""

from __future__ import annotations

from pathlib import Path

from ddq_port import configs
from legacy_adapters.family import Alias, Family, Side, Variant
from legacy_adapters.ground.packages import MMDET
from legacy_adapters.targets import co_detr
from legacy_adapters.targets.co_detr.rules import CLASS_ROWS, MARKERS
from legacy_adapters.targets.co_detr.seeding import SEEDING

from .rules import rules

_FOLDER = Path(__file__).parent


def _variant(name: str, config: str, override: str, embed_dims: int) -> Variant:
    path = str(configs.path(f"co_detr/{config}"))
    return Variant(
        name,
        legacy=dict(config=path, overrides=str(_FOLDER / "configs" / "legacy" / f"{override}.py")),
        new=dict(config=path),
        sizes=((93, 115), (131, 121), (77, 157)),
        settings=dict(embed_dims=embed_dims),
    )


FAMILY = Family(
    name="mmdet_co_detr",
    variants=(
        _variant("co_dino_5scale_swin_l", "co-dino-5scale_swin-l_16xb1-12e_coco", "swin_l", 192),
        _variant("tiny_co_dino_swin", "co-dino-5scale_tiny-swin", "tiny_swin", 16),
    ),
    legacy=Side(
        "Co-DETR on mmdet's Swin Transformer", Path("legacy.py"), packages=("mmdet", "mmcv", "mmengine"), needs=MMDET
    ),
    new=Side("ddq_port", Path(co_detr.__file__).parent / "new.py", packages=("ddq_port",), needs=MMDET),
    rules=rules,
    aliases=(Alias("backbone.stages.*", "backbone.layers.*"),),
    class_rows=CLASS_ROWS,
    markers=(*MARKERS, "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"),
    seeding=SEEDING,
    layouts=Path("layouts"),
)
