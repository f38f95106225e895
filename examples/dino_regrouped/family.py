"""MMDetection's DINO, carried to subclasses of it whose submodules are renamed and regrouped.

Run it from a checkout of this toolkit:  ddq-parity run --family examples/dino_regrouped
"""

from pathlib import Path

from legacy_adapters.family import Draw, Family, Seeding, Side, Variant
from legacy_adapters.ground.packages import MMDET

from .rules import CLASS_ROWS, RULES

CONFIG = "dino/dino-4scale_r50_8xb2-12e_coco.py"
# every part of the real model, with few layers and a small backbone
SMALL = str(Path(__file__).with_name("small.py"))

FAMILY = Family(
    name="dino_regrouped",
    variants=(Variant("small", legacy=dict(config=CONFIG, overrides=SMALL), new=dict(config=CONFIG, overrides=SMALL)),),
    legacy=Side("mmdet 3.3.0", Path("legacy.py"), packages=MMDET, needs=MMDET),
    new=Side("regrouped DINO", Path("new.py"), needs=MMDET),
    rules=RULES,
    class_rows=CLASS_ROWS,
    # seeded weights that make queries differ: scores away from 0 and 1, boxes that grow
    seeding=Seeding(
        draws=(
            Draw("*sampling_offsets.bias*", 2.0),
            Draw("*cls_branches*.bias", 0.1, -2.0),
            Draw("*reg_branches*", 0.1, (0.0, 0.0, 1.0, 1.0), shape=(4,)),
        ),
        gains={"*output_proj.weight": 0.5, "*ffn.layers.1.weight": 0.5},
    ),
)
