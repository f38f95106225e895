"""The checkout of the official code, github jshilong/DDQ, branch ``ddq_detr``."""

from __future__ import annotations

from legacy_adapters.family import Checkout

MMCV_FOLDER = "mmcv-2.0.0rc4"
CHECKOUT = Checkout(
    files=("projects/models/ddq_detr.py", "mmdet/__init__.py", "mmengine/__init__.py", f"{MMCV_FOLDER}/mmcv"),
    hint="a checkout of github.com/jshilong/DDQ, branch ddq_detr",
    code=("projects", "mmdet", "mmengine", f"{MMCV_FOLDER}/mmcv"),
    commits={"1017f9d84b89d08c90b8b73e7a54ebb6177fb16afb23d90a57b4f46eedb87237": "80c7d5f"},
)
