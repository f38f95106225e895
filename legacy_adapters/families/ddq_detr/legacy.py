"""Adapter of the official DDQ-DETR: github jshilong/DDQ, branch ``ddq_detr``.

The repo holds its own mmdet 3.0.0rc6, mmengine 0.6.0 and mmcv 2.0.0rc4.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Dict, List, Mapping, Optional

import torch

from legacy_adapters import mmdet3, shims, standin
from legacy_adapters.bases import ddq, operators
from legacy_adapters.provenance import originals
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.methods import Aside
from legacy_adapters.recording.taps import Tap
from legacy_adapters.whole import engine
from legacy_adapters.whole.request import Outcome, WholeTest, WholeTraining

from .checkout import CHECKOUT, MMCV_FOLDER


class OfficialDDQDETR(mmdet3.MMDet3Adapter):
    """Build and run the repo's own model."""

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of a config in the checkout."""
        return os.path.join(options["repo"], options["config"])

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the model.

        Args:
            options: ``repo``: path of the checkout; ``config``: path of a config in it; ``overrides``: as in
                :func:`mmdet3.build_model`.
            device: where it will run.
        """
        _make_importable(options["repo"], device)
        import mmdet.models  # noqa: F401  (registers the repo's modules)

        model = mmdet3.build_model(self.config(options), options["overrides"])
        _class_indices_beside_boxes()
        _no_more_detections_than_there_are()
        return model

    def train_whole(self, request: WholeTraining) -> Outcome:
        """Train with the repo's own mmengine."""
        return engine.train(self._whole_config(request), request)

    def test_whole(self, request: WholeTest) -> Outcome:
        """Test with the repo's own mmengine."""
        return engine.test(self._whole_config(request), request)

    def _whole_config(self, request: Any) -> Any:
        """Return the repo's config with all changes of the variant, the repo's modules at hand."""
        _make_importable(request.options["repo"], request.device)
        shims.install_libraries()
        _class_indices_beside_boxes()
        _no_more_detections_than_there_are()
        return self.whole_config(request.options)

    def taps(self, model: torch.nn.Module) -> List[Tap]:
        """Watch query selection, both matchings, the noise and the final top-k."""
        from mmdet.models.task_modules.assigners import hungarian_assigner
        from projects.models import ddq_detr, utils

        return [
            ddq.selection_tap(ddq_detr, "batched_nms", model.num_queries, ddq.selection_probe(model)),
            *tap_lib.matchings({hungarian_assigner: "match", utils: "dense_match"}),
            *tap_lib.random_taps(),
            *tap_lib.rankings(),
        ]

    def aside(self, model: torch.nn.Module) -> Aside:
        """Give the masks in the dict that all modules share."""
        return ddq.aside(model)

    def provenance(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        """Prove which code ran."""
        import mmcv
        import mmdet
        import mmengine
        import projects

        code = originals.fingerprint(options["repo"], CHECKOUT.code)
        return dict(
            code_base="jshilong/DDQ@ddq_detr",
            repo=options["repo"],
            code_sha256=code,
            commit=CHECKOUT.commit(code),
            modules=mmdet3.module_provenance(mmdet, mmcv, mmengine, projects),
            mmcv_ops=operators.mmcv_ops(),
            **(dict(shims=list(shims.IN_PLACE)) if shims.IN_PLACE else {}),
        )


def _make_importable(repo: str, device: str) -> None:
    """Let the repo's own packages be imported.

    Args:
        repo: path of the checkout.
        device: the repo calls ``.cuda()`` on masks whatever the device, so that is neutralised on the CPU.
    """
    sys.path[:0] = [repo, os.path.join(repo, MMCV_FOLDER)]
    standin.install()  # an mmcv built in place is used before it
    if not device.startswith("cuda"):
        torch.Tensor.cuda = lambda self, *args, **kwargs: self


def _class_indices_beside_boxes() -> None:
    """Hand the class indices of the repo's NMS (all ones) on where the boxes are.

    The repo makes them on the CPU. mmcv's path for 10,000 boxes and more then indexes a CPU tensor with one of the GPU,
    which today's torch refuses.
    """
    from projects.models import ddq_detr

    nms = ddq_detr.batched_nms

    def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Optional[dict]) -> Any:
        return nms(boxes, scores, idxs.to(boxes.device), nms_cfg)

    ddq_detr.batched_nms = batched_nms


def _no_more_detections_than_there_are() -> None:
    """Let the repo's head ask an image for as many detections as it has queries times classes, at most.

    It asks for ``max_per_img`` whatever is left, which ends a validation with an error where NMS leaves few queries and
    there are few classes. Where enough are left this changes nothing.
    """
    from projects.models import ddq_detr

    head = ddq_detr.DDQDETRHead
    single = head._predict_by_feat_single
    if hasattr(single, "__wrapped__"):
        return

    @functools.wraps(single)
    def predict_by_feat_single(self: Any, cls_score: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        test_cfg, wanted = self.test_cfg, self.test_cfg.get("max_per_img", len(cls_score))
        if wanted <= cls_score.numel():
            return single(self, cls_score, *args, **kwargs)
        self.test_cfg = dict(test_cfg, max_per_img=cls_score.numel())
        try:
            return single(self, cls_score, *args, **kwargs)
        finally:
            self.test_cfg = test_cfg

    head._predict_by_feat_single = predict_by_feat_single


ADAPTER = OfficialDDQDETR()
