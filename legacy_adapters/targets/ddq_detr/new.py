"""Adapter of this toolkit's own DDQ-DETR: the new side."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (registers the detectors; supplies mmcv._ext before mmdet asks)

import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from mmdet.models.task_modules.assigners import hungarian_assigner
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor

from ddq_port.models.ddq_detr import assigner, detector, queries
from legacy_adapters import mmdet3
from legacy_adapters.bases import operators
from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.recording.taps import Tap
from legacy_adapters.tasks import probes

#: What is set under autocast, where the port is more precise than the legacy code on purpose (D27 of the register).
AUTOCAST_SWITCH = "bbox_head.float32_boxes=False"


class PortedDDQDETR(mmdet3.MMDet3Adapter):
    """Build and run the detector of ``options["config"]``, a path.

    Attributes:
        probes: sets of boxes at the threshold that the NMS is tried with; None for all.
    """

    probes: int | None = None

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build it, to be run under autocast if ``options`` has ``amp``."""
        model = mmdet3.build_model(options["config"])
        if "amp" in options:
            model.bbox_head.float32_boxes = False
        return model

    def taps(self, model: torch.nn.Module) -> list[Tap]:
        """Watch query selection, both matchings, the noise and the final top-k."""

        def distinct_basis(boxes: Tensor, scores: Tensor, iou_threshold: float, max_num: int) -> dict[str, Any]:
            xyxy = bbox_cxcywh_to_xyxy(boxes)
            return {"boxes": xyxy, "scores": scores, "iou_threshold": iou_threshold, "max_num": model.num_queries}

        def dense_basis(scores: Tensor, max_num: int) -> dict[str, Any]:
            return {"scores": scores}

        def distinct_probe() -> Iterator[tuple]:
            threshold, like = model.selection.iou_threshold, next(model.parameters())
            for boxes, scores in islice(probes.boxes_at_threshold(threshold, model.num_queries, like), self.probes):
                yield bbox_xyxy_to_cxcywh(boxes), scores, threshold, model.num_queries

        return [
            _selection(detector, "select_distinct", "distinct", distinct_basis, distinct_probe),
            _selection(queries, "select_distinct", "distinct", distinct_basis),
            _selection(detector, "select_dense", "dense", dense_basis),
            *tap_lib.matchings({hungarian_assigner: "match", assigner: "dense_match"}),
            *tap_lib.random_taps(),
            *tap_lib.rankings(),
        ]

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran."""
        import mmcv
        import mmdet
        import mmengine

        import ddq_port

        return dict(
            code_base="ddq_port",
            config=options["config"],
            **(dict(switch=AUTOCAST_SWITCH) if "amp" in options else {}),
            mmcv_ops=operators.mmcv_ops(),
            modules=mmdet3.module_provenance(ddq_port, mmdet, mmcv, mmengine),
        )


def _selection(
    owner: Any, attribute: str, name: str, basis: Callable[..., dict[str, Any]], probe: Callable | None = None
) -> Tap:
    first = next(iter(inspect.signature(basis).parameters))  # named as in the function

    def write(decision: dict[str, Tensor], like: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        keep = decision["keep"].to(like.device)
        return keep if tap_lib.within(keep, len(like)) else None

    def read(result: Tensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return {"keep": result}

    return Tap(owner, attribute, lambda *args, **kwargs: name, read, write, basis=basis, probe=probe, first=first)


ADAPTER = PortedDDQDETR()
