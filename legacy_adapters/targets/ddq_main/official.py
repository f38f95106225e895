"""Adapter of the official DDQ FCN and DDQ R-CNN: github jshilong/DDQ, branch ``main``.

The repo holds its own mmdet 2.22.0 and mmcv 1.4.7. Runs in the legacy interpreter.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Mapping

import torch

from legacy_adapters.targets.repo2.adapter import RepoAdapter

from .checkout import CHECKOUT, MMCV_FOLDER
from .observing import Observed


class OfficialDDQ(Observed, RepoAdapter):
    """Build and run a model of the repo."""

    checkout = CHECKOUT
    code_base = "jshilong/DDQ@main"

    def make_importable(self, options: Mapping[str, Any], device: str) -> None:
        """Find the repo's own mmcv, and let all of it be recorded."""
        sys.path.insert(0, os.path.join(options["repo"], MMCV_FOLDER))
        super().make_importable(options, device)
        _keep_names()
        _let_losses_be_called()


def _let_losses_be_called() -> None:
    """Make the losses' own ``__call__`` their ``forward``, so that their calls are recorded."""
    from projects.models.loss_module import AuxLoss

    if "__call__" in vars(AuxLoss):
        AuxLoss.forward = AuxLoss.__call__
        del AuxLoss.__call__


def _keep_names() -> None:
    """Let heads load weights under the names they have.

    Heads of points rename what is loaded without a version of its layout, by how names end: weights of
    ``aux_conv_cls`` would become those of ``conv_cls``. That is for files older than the repo.
    """
    from mmdet.models import AnchorFreeHead

    AnchorFreeHead._load_from_state_dict = torch.nn.Module._load_from_state_dict


ADAPTER = OfficialDDQ()
