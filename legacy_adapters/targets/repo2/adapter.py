"""An official repo that holds its own MMDetection 2.x, and configs to which something small is merged."""

from __future__ import annotations

import os
import runpy
from typing import Any, Dict, Mapping

import torch

from legacy_adapters import mmdet2
from legacy_adapters.family import Checkout
from legacy_adapters.provenance import originals
from legacy_adapters.whole.request import Outcome, WholeTest, WholeTraining

from . import whole


class RepoAdapter(mmdet2.MMDet2Adapter):
    """Build and run a model of the repo.

    ``options`` has ``repo``, the path of the checkout, ``config``, the path of a config in it, and ``overrides``, paths of
    plain Python files whose dicts are merged into the config.

    Attributes:
        checkout: what the repo is.
        code_base: its name.
    """

    checkout: Checkout
    code_base: str

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
        self.make_importable(options, device)
        return self.built(self.whole_config(options))

    def make_importable(self, options: Mapping[str, Any], device: str) -> None:
        """Make the repo's packages importable and register its modules."""
        mmdet2.prepare(options["repo"], device)
        import projects.models  # noqa: F401  (registers the repo's modules)

    def built(self, config: Any) -> torch.nn.Module:
        """Build the detector of a config that was read."""
        from mmdet.models import build_detector

        return build_detector(config.model)

    def train_whole(self, request: WholeTraining) -> Outcome:
        """Train with the mmcv that the repo runs on."""
        self.make_importable(request.options, request.device)
        return whole.train(self.built, self.whole_config(request.options), request)

    def test_whole(self, request: WholeTest) -> Outcome:
        """Test with the repo's own mmdet."""
        self.make_importable(request.options, request.device)
        return whole.test(self.built, self.whole_config(request.options), request)

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Prove which code ran."""
        import projects

        code = originals.fingerprint(options["repo"], self.checkout.code)
        told = super().provenance(options)
        told["modules"]["projects"] = dict(file=str(projects.__file__), version="")
        return dict(
            told,
            code_base=self.code_base,
            repo=options["repo"],
            code_sha256=code,
            commit=self.checkout.commit(code),
        )
