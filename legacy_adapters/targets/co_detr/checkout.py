"""The checkout of the official code, github Sense-X/Co-DETR; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import Checkout

#: Folder of the checkout that its packages may be installed in: mmcv 1.x and what else the code imports.
PACKAGES = "packages"
CHECKOUT = Checkout(
    files=("projects/models/co_detr.py", "mmdet/__init__.py"),
    hint="a checkout of github.com/Sense-X/Co-DETR",
    code=("projects", "mmdet", "mmcv_custom"),
    commits={"aae2b3dc95b7614bb13e242f41a3f607ac0561d00ba4774720c0aac47e377c4f": "2665352"},
)
