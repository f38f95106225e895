"""Detectors of MMDetection 2.x, carried to MMDetection 3.x by their two configs."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.family import SIDES, Checkout, Family, Side, Variant

from .rules import aliases, rules
from .rules_detr import EXCLUSIONS


def configured(legacy: str, new: str) -> Variant:
    """Return the model of two configs."""
    title = " -> ".join(Path(config).stem for config in (legacy, new) if config)
    return Variant(title, legacy=dict(config=legacy), new=dict(config=new), title=title)


#: Small models, to try the family and in its tests.
_TRANSFORMERS = ("tiny_detr", "tiny_deformable", "tiny_deformable_refine", "tiny_deformable_two_stage")
_SMALL = ("tiny_retinanet", *_TRANSFORMERS)


def _own(name: str, legacy: str = "") -> Variant:
    """Return a model of two configs of this folder; the legacy one may have another name."""
    folder = Path(__file__).parent / "configs"
    configs = {side: dict(config=str(folder / side / f"{config}.py")) for side, config in zip(SIDES, (legacy or name, name))}
    return Variant(name, **configs)


FAMILY = Family(
    name="mmdet2",
    variants=(*(_own(name) for name in _SMALL), *(_own(f"{name}_sequence_first", name) for name in _TRANSFORMERS)),
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
    aliases=aliases,
    exclusions=EXCLUSIONS,
    configured=configured,
)
