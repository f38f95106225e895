"""Adapter of detectors of MMDetection 3.x: the new side."""

from __future__ import annotations

import ddq_port.ops.standin

ddq_port.ops.standin.install()  # operators, where mmcv was installed without its compiled ones

import os  # noqa: E402
from collections.abc import Callable, Mapping  # noqa: E402
from typing import Any  # noqa: E402

import mmdet.models  # noqa: E402, F401  (registers its modules)
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from legacy_adapters import mmdet3  # noqa: E402
from legacy_adapters.bases import operators  # noqa: E402
from legacy_adapters.bases.configs import class_names, refused_types  # noqa: E402
from legacy_adapters.inputs import UNSCALED, Batch  # noqa: E402
from legacy_adapters.recording.taps import Tap, matchings, random_taps, rankings  # noqa: E402


class MMDet3Detector(mmdet3.MMDet3Adapter):
    """Build and run any detector of a config."""

    samples = staticmethod(mmdet3.detailed_samples)
    #: Those of one name on both sides are compared; the others, of heads, tell whose code is running.
    methods = (
        "get_anchors", "loss", "predict", "loss_and_predict", "loss_by_feat", "predict_by_feat",
        "predict_bbox", "bbox_loss", "_bbox_post_process",
    )  # fmt: skip

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of a config: a file, or a name among those of mmdet's package."""
        path = options["config"]
        return path if os.path.isfile(path) else mmdet3.packaged_config(path)

    def build(self, options: Mapping[str, Any], device: str) -> torch.nn.Module:
        """Build the detector of the config."""
        from mmengine.logging import MessageHub

        # some heads ask for the epoch, which a runner would tell
        MessageHub.get_instance("ddq_port_worker").update_info("epoch", 0)
        path = self.config(options)
        with refused_types(path):
            return mmdet3.build_model(path)

    def predict(self, model: Any, batch: Batch) -> list[dict[str, Tensor]]:
        """Run inference; return what 2.x does: class by class."""
        return [_by_class(found) for found in super().predict(model, batch)]

    def predictor(self, model: torch.nn.Module) -> str | None:
        """Name the head, unless it gives proposals: these have no classes, and 2.x calls that head otherwise."""
        from mmdet.models.detectors import RPN

        return None if isinstance(model, RPN) else super().predictor(model)

    def variants(self, model: Any) -> dict[str, Callable[[Batch], list[Any]]]:
        """Return inference with boxes of the resized images."""
        unscaled = super().variants(model)[UNSCALED]
        return {UNSCALED: lambda batch: [_by_class(found) for found in unscaled(batch)]}

    def image_detector(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Callable[[str, int], dict[str, Any]]:
        """Take the test pipeline of the config; return what 2.x does: class by class."""
        detect = super().image_detector(model, options)

        def by_class(path: str, image_id: int) -> dict[str, Any]:
            found = detect(path, image_id)
            return {**found, **_by_class({name: found[name] for name in ("bboxes", "scores", "labels")})}

        return by_class

    def taps(self, model: Any) -> list[Tap]:
        """Watch what is discrete or drawn."""
        return [*matchings({}), *random_taps(), *rankings(), *operators.taps()]

    def provenance(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Tell which code ran."""
        import mmcv
        import mmdet
        import mmengine

        return dict(
            code_base="mmdet " + mmdet.__version__,
            mmcv_ops=operators.mmcv_ops(),
            modules=mmdet3.module_provenance(mmdet, mmcv, mmengine),
            class_names=_names_of_classes(self.config(options)),
        )


def _names_of_classes(config: str) -> list[str] | None:
    """Return what the classes are called by a config's first loader that tells."""
    from mmengine.config import Config

    read = Config.fromfile(config)
    loaders = (read.get(f"{part}_dataloader") or {} for part in ("test", "val", "train"))
    return next(filter(None, (class_names(loader.get("dataset"), _own_classes) for loader in loaders)), None)


def _own_classes(dataset: str) -> Any:
    import mmdet.datasets  # noqa: F401  (registers its modules)
    from mmdet.registry import DATASETS

    return getattr(DATASETS.get(dataset), "METAINFO", {}).get("classes")


def _by_class(detected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the detections of an image into the order of 2.x: by class, within one as the head gives them.

    Masks of no detection have no size, for 2.x gives a list of masks.
    """
    order = detected["labels"].argsort(stable=True)
    ordered = {name: value[order] for name, value in detected.items()}
    if "masks" in ordered and not len(order):
        ordered["masks"] = torch.zeros(0, 0, 0, dtype=torch.bool, device=order.device)
    return ordered


ADAPTER = MMDet3Detector()
