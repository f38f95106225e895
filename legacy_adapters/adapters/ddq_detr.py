"""Adapter of the official DDQ-DETR: github jshilong/DDQ, branch ``ddq_detr``.

The repo holds its own mmdet 3.0.0rc6, mmengine 0.6.0 and mmcv 2.0.0rc4.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional

import torch

from legacy_adapters import mmdet3
from legacy_adapters import taps as tap_lib
from legacy_adapters.methods import Aside
from legacy_adapters.taps import Tap

predict, losses = mmdet3.predict, mmdet3.losses

MMCV_FOLDER = "mmcv-2.0.0rc4"
#: Commits of the branch by the fingerprint of their code, for checkouts without git's own folder.
COMMITS = {"1017f9d84b89d08c90b8b73e7a54ebb6177fb16afb23d90a57b4f46eedb87237": "80c7d5f"}
CODE = ("projects", "mmdet", "mmengine", MMCV_FOLDER + "/mmcv")


def build(options: Dict[str, Any], device: str) -> torch.nn.Module:
    """Build the repo's own model.

    Args:
        options: ``repo``: path of the checkout; ``config``: path of a config in it; ``overrides``: as in
            :func:`mmdet3.build_model`.
        device: the repo calls ``.cuda()`` on masks whatever the device, so that is neutralised on the CPU.
    """
    repo = options["repo"]
    sys.path[:0] = [repo, os.path.join(repo, MMCV_FOLDER)]
    supply_mmcv_ops()
    if not device.startswith("cuda"):
        torch.Tensor.cuda = lambda self, *args, **kwargs: self
    import mmdet.models  # noqa: F401  (registers the repo's modules)

    return mmdet3.build_model(os.path.join(repo, options["config"]), options["overrides"])


def training(model: torch.nn.Module, options: Dict[str, Any], epoch_length: Optional[int]) -> mmdet3.EngineTraining:
    """Make optimizer and schedulers of the repo's config, with the repo's mmengine."""
    config = mmdet3.load_config(os.path.join(options["repo"], options["config"]))
    return mmdet3.training(model, config, epoch_length)


def image_detector(model: torch.nn.Module, options: Dict[str, Any]) -> mmdet3.Detector:
    """Take the test pipeline of the repo's config; ``options["scale"]`` takes the place of its image scale."""
    return mmdet3.Detector(
        model, mmdet3.load_config(os.path.join(options["repo"], options["config"])), options.get("scale")
    )


def supply_mmcv_ops() -> None:
    """Install the stand-in for mmcv's compiled ops where it is at hand; an mmcv built in place is used before it."""
    try:
        from ddq_port.ops import standin
    except ImportError:
        return
    standin.install()


def taps(model: torch.nn.Module) -> List[Tap]:
    """Watch query selection, both matchings, the noise and the final top-k."""
    from mmdet.models.task_modules.assigners import hungarian_assigner
    from projects.models import ddq_detr, utils

    return [
        selection_tap(ddq_detr, "batched_nms", model.num_queries),
        *tap_lib.matchings({hungarian_assigner: "match", utils: "dense_match"}),
        *tap_lib.random_taps(),
        *tap_lib.rankings(),
    ]


def aside(model: torch.nn.Module) -> Aside:
    """Give what the decoder leaves for the head in the dict that all modules of DDQ share.

    That is the matching queries which entered each layer as distinct, under the name ``active_masks``: per layer
    [bs, num_queries] bool, the first row of a mask that all heads of an image have in common.
    """

    def left(name: str, method: str, result: Any) -> Dict[str, Any]:
        if name or method != "forward_decoder":
            return {}
        shared = model.cache_dict
        later = [mask[:: shared["num_heads"], 0] for mask in shared["distinct_query_mask"]]
        return {"active_masks": [torch.ones_like(mask) for mask in later[:1]] + later}

    return left


def selection_tap(owner: Any, attribute: str, num_queries: int) -> Tap:
    """Watch mmcv's ``batched_nms`` as DDQ uses it.

    With an NMS config it selects distinct queries, without one it sorts (dense queries). The caller cuts the result to
    ``num_queries`` (distinct) or 1.5 times that (dense); what lies behind the cut is used by nothing and not recorded.
    """

    def name(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Optional[dict]) -> str:
        return "distinct" if nms_cfg is not None else "dense"

    def read(result: Any, *args: Any) -> Dict[str, torch.Tensor]:
        limit = num_queries if name(*args) == "distinct" else int(num_queries * 1.5)
        return {"keep": result[1][:limit]}

    def write(decision: Dict[str, torch.Tensor], boxes: torch.Tensor, scores: torch.Tensor, *args: Any) -> Any:
        keep = decision["keep"].to(boxes.device)
        return torch.cat([boxes[keep], scores[keep, None]], -1), keep

    def basis(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, nms_cfg: Optional[dict]) -> Dict[str, Any]:
        if nms_cfg is None:
            return {"scores": scores}
        return {"boxes": boxes, "scores": scores, "iou_threshold": nms_cfg["iou_threshold"], "max_num": num_queries}

    return Tap(owner, attribute, name, read, write, basis=basis)


def provenance(options: Dict[str, Any]) -> dict:
    """Prove which code ran."""
    import mmcv
    import mmdet
    import mmengine
    import projects

    repo = options["repo"]
    code = mmdet3.fingerprint(repo, CODE)
    return dict(
        code_base="jshilong/DDQ@ddq_detr",
        repo=repo,
        code_sha256=code,
        commit=COMMITS.get(code, "unknown: its code is none of the commits this adapter was made for"),
        modules=mmdet3.module_provenance(mmdet, mmcv, mmengine, projects),
        mmcv_ops=mmdet3.mmcv_ops(),
    )
