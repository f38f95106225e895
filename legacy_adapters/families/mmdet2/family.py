"""Detectors of MMDetection 2.x, carried to MMDetection 3.x by their two configs."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import SIDES, Checkout, Family, Side, Variant

from .rules import rules


def configured(legacy: str, new: str) -> Variant:
    """Return the model of two configs."""
    title = " -> ".join(Path(config).stem for config in (legacy, new) if config)
    return Variant(title, legacy=dict(config=legacy), new=dict(config=new), title=title)


def _own(name: str) -> dict:
    folder = Path(__file__).parent / "configs"
    return {side: dict(config=str(folder / side / f"{name}.py")) for side in SIDES}


FAMILY = Family(
    name="mmdet2",
    variants=(Variant("tiny_retinanet", **_own("tiny_retinanet")),),
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
    configured=configured,
)
