"""Detectors of MMDetection 2.x, carried to MMDetection 3.x by their two configs."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import Checkout, Family, Side, Variant

from .rules import rules


def configured(legacy: str, new: str) -> Variant:
    """Return the model of two configs."""
    return Variant("{}={}".format(legacy, new), legacy=dict(config=legacy), new=dict(config=new))


FAMILY = Family(
    name="mmdet2",
    variants=(configured("retinanet/retinanet_r50_fpn_1x_coco.py", "retinanet/retinanet_r50_fpn_1x_coco.py"),),
    legacy=Side(
        "mmdet 2.x",
        Path("legacy.py"),
        checkout=Checkout(files=("mmdet/__init__.py",), hint="a folder with the package mmdet 2.x", code=("mmdet",)),
    ),
    new=Side("mmdet 3.x", Path("new.py"), packages=("mmengine",)),
    rules=rules,
)
