"""The checkout of the official code, github jshilong/DDQ, branch ``main``; imports no torch."""

from __future__ import annotations

from legacy_adapters.family import Checkout

MMCV_FOLDER = "mmcv-1.4.7"
CHECKOUT = Checkout(
    files=("projects/models/ddq_fcn_head.py", "mmdet/__init__.py", f"{MMCV_FOLDER}/mmcv"),
    hint="a checkout of github.com/jshilong/DDQ, branch main",
    code=("projects", "mmdet", f"{MMCV_FOLDER}/mmcv"),
    commits={"e491721ed1651070230e5e704435b5224bc1e7f4261ec4892f9188b0d955982f": "de9331e"},
)
