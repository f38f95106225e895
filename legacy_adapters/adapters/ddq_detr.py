"""Adapter of the official DDQ-DETR: github jshilong/DDQ, branch ``ddq_detr``.

The repo holds its own mmdet 3.0.0rc6, mmengine 0.6.0 and mmcv 2.0.0rc4.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch

from legacy_adapters import families, mmdet3, standin
from legacy_adapters.provenance import originals
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.methods import IN, OUT, Aside
from legacy_adapters.recording.taps import Tap
from legacy_adapters.tasks import probes

predict, losses, variants = mmdet3.predict, mmdet3.losses, mmdet3.variants

_FAMILY = families.get("ddq_detr")
MMCV_FOLDER = families.MMCV_FOLDER


def build(options: Dict[str, Any], device: str) -> torch.nn.Module:
    """Build the repo's own model.

    Args:
        options: ``repo``: path of the checkout; ``config``: path of a config in it; ``overrides``: as in
            :func:`mmdet3.build_model`.
        device: the repo calls ``.cuda()`` on masks whatever the device, so that is neutralised on the CPU.
    """
    repo = options["repo"]
    sys.path[:0] = [repo, os.path.join(repo, MMCV_FOLDER)]
    standin.install()  # an mmcv built in place is used before it
    if not device.startswith("cuda"):
        torch.Tensor.cuda = lambda self, *args, **kwargs: self
    import mmdet.models  # noqa: F401  (registers the repo's modules)

    model = mmdet3.build_model(os.path.join(repo, options["config"]), options["overrides"])
    _class_indices_beside_boxes()
    return model


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


def training(model: torch.nn.Module, options: Dict[str, Any], epoch_length: Optional[int]) -> mmdet3.EngineTraining:
    """Make optimizer and schedulers of the repo's config, with the repo's mmengine."""
    config = mmdet3.load_config(os.path.join(options["repo"], options["config"]))
    return mmdet3.training(model, config, epoch_length)


def distributed(model: torch.nn.Module, options: Dict[str, Any]) -> torch.nn.Module:
    """Wrap the model as the repo's mmengine does for the repo's config."""
    return mmdet3.distributed(model, mmdet3.load_config(os.path.join(options["repo"], options["config"])))


def image_detector(model: torch.nn.Module, options: Dict[str, Any]) -> mmdet3.Detector:
    """Take the test pipeline of the repo's config; ``options["scale"]`` takes the place of its image scale."""
    return mmdet3.Detector(
        model, mmdet3.load_config(os.path.join(options["repo"], options["config"])), options.get("scale")
    )


def taps(model: torch.nn.Module) -> List[Tap]:
    """Watch query selection, both matchings, the noise and the final top-k."""
    from mmdet.models.task_modules.assigners import hungarian_assigner
    from projects.models import ddq_detr, utils

    return [
        selection_tap(ddq_detr, "batched_nms", model.num_queries, selection_probe(model)),
        *tap_lib.matchings({hungarian_assigner: "match", utils: "dense_match"}),
        *tap_lib.random_taps(),
        *tap_lib.rankings(),
    ]


def aside(model: torch.nn.Module) -> Aside:
    """Give what the decoder leaves for the head, and the head finds, in the dict that all modules of DDQ share.

    That is the matching queries which entered each layer as distinct, under the name ``active_masks``: per layer
    [bs, num_queries] bool, the first row of a mask that all heads of an image have in common.
    """
    passed = {("", "forward_decoder", OUT), ("bbox_head", "loss", IN), ("bbox_head", "predict", IN)}

    def masks(name: str, method: str, kind: str) -> Dict[str, Any]:
        if (name, method, kind) not in passed:
            return {}
        shared = model.cache_dict
        later = [mask[:: shared["num_heads"], 0] for mask in shared["distinct_query_mask"]]
        return {"active_masks": [torch.ones_like(mask) for mask in later[:1]] + later}

    return masks


def selection_tap(owner: Any, attribute: str, num_queries: int, probe: Optional[Callable] = None) -> Tap:
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

    return Tap(owner, attribute, name, read, write, basis=basis, probe=probe)


def selection_probe(model: torch.nn.Module) -> Callable[[], Iterator[tuple]]:
    """Return what gives ``batched_nms`` boxes whose overlaps are the threshold, and nearly so."""

    def arguments() -> Iterator[tuple]:
        cfg, like = dict(model.dqs_cfg), next(model.parameters())
        for boxes, scores in probes.boxes_at_threshold(cfg["iou_threshold"], model.num_queries, like):
            yield boxes, scores, torch.ones_like(scores), dict(cfg)

    return arguments


def provenance(options: Dict[str, Any]) -> dict:
    """Prove which code ran."""
    import mmcv
    import mmdet
    import mmengine
    import projects

    repo = options["repo"]
    code = originals.fingerprint(repo, _FAMILY.code)
    return dict(
        code_base="jshilong/DDQ@ddq_detr",
        repo=repo,
        code_sha256=code,
        commit=_FAMILY.commits.get(code, originals.UNKNOWN),
        modules=mmdet3.module_provenance(mmdet, mmcv, mmengine, projects),
        mmcv_ops=mmdet3.mmcv_ops(),
    )
