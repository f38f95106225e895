"""Adapter of the official DDQ FCN and DDQ R-CNN: github jshilong/DDQ, branch ``main``.

The repo holds its own mmdet 2.22.0 and mmcv 1.4.7. Runs in the legacy interpreter.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any, Dict, Mapping

import torch

from legacy_adapters import mmdet2
from legacy_adapters.provenance import originals
from legacy_adapters.whole.request import Outcome, WholeTest, WholeTraining

from . import whole
from .checkout import CHECKOUT, MMCV_FOLDER
from .observing import Observed


class OfficialDDQ(Observed, mmdet2.MMDet2Adapter):
    """Build and run a model of the repo.

    ``options`` has ``repo``, the path of the checkout, ``config``, the path of a config in it, and ``overrides``, paths of
    plain Python files whose dicts are merged into the config.
    """

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of a config in the checkout."""
        return os.path.join(options["repo"], options["config"])

    def whole_config(self, options: Mapping[str, Any]) -> Any:
        """Return the config with what is merged into it."""
        config = mmdet2.load_config(self.config(options))
        for path in options["overrides"]:
            sections = {name: value for name, value in runpy.run_path(path).items() if not name.startswith("_")}
            config.merge_from_dict(sections, allow_list_keys=True)  # keys of a list are the numbers of its elements
        return config

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        self._make_importable(options, device)
        return self._build(self.whole_config(options))

    def _make_importable(self, options: Mapping[str, Any], device: str) -> None:
        sys.path.insert(0, os.path.join(options["repo"], MMCV_FOLDER))
        mmdet2.prepare(options["repo"], device)
        import projects.models  # noqa: F401  (registers the repo's modules)

        _keep_names()
        _let_losses_be_called()

    def _build(self, config: Any) -> torch.nn.Module:
        from mmdet.models import build_detector

        return build_detector(config.model)

    def train_whole(self, request: WholeTraining) -> Outcome:
        """Train with the repo's own mmcv."""
        self._make_importable(request.options, request.device)
        return whole.train(self._build, self.whole_config(request.options), request)

    def test_whole(self, request: WholeTest) -> Outcome:
        """Test with the repo's own mmdet."""
        self._make_importable(request.options, request.device)
        return whole.test(self._build, self.whole_config(request.options), request)

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Prove which code ran."""
        import projects

        code = originals.fingerprint(options["repo"], CHECKOUT.code)
        told = super().provenance(options)
        told["modules"]["projects"] = dict(file=str(projects.__file__), version="")
        return dict(
            told,
            code_base="jshilong/DDQ@main",
            repo=options["repo"],
            code_sha256=code,
            commit=CHECKOUT.commit(code),
        )


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
