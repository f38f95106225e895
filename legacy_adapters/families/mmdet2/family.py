"""Detectors of MMDetection 2.x, carried to MMDetection 3.x by their two configs."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import SIDES, Checkout, Family, Side, Variant

from .aliases import ALIASES
from .rules import rules
from .seeding import SEEDING


def configured(legacy: str, new: str) -> Variant:
    """Return the model of two configs."""
    title = " -> ".join(Path(config).stem for config in (legacy, new) if config)
    return Variant(title, legacy=dict(config=legacy), new=dict(config=new), title=title)


#: Of this folder, to try the family and in its tests.
_SMALL = (
    "tiny_retinanet",
    "tiny_fcos",
    "tiny_atss",
    "tiny_yolox",
    "tiny_faster_rcnn",
    "tiny_mask_rcnn",
    "tiny_cascade_rcnn",
    "tiny_sparse_rcnn",
    "tiny_detr",
    "tiny_deformable",
    "tiny_deformable_refine",
    "tiny_deformable_two_stage",
)


def _own(name: str) -> dict:
    folder = Path(__file__).parent / "configs"
    return {side: dict(config=str(folder / side / f"{name}.py")) for side in SIDES}


FAMILY = Family(
    name="mmdet2",
    variants=tuple(Variant(name, classes=7, **_own(name)) for name in _SMALL),
    legacy=Side(
        "mmdet 2.x",
        Path("legacy.py"),
        checkout=Checkout(
            files=("mmdet/__init__.py",),
            hint="a folder with the packages mmdet 2.x and mmcv 1.x",
            code=("mmdet",),
            or_installed=True,
        ),
    ),
    new=Side("mmdet 3.x", Path("new.py"), packages=("mmengine",)),
    rules=rules,
    seeding=SEEDING,
    aliases=ALIASES,
    batch_divisor=32,
    configured=configured,
)
