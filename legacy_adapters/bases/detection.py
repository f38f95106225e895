"""Base of adapters of detectors: a batch of images with objects in, boxes, scores and labels out."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import torch

from legacy_adapters.adapter import Adapter, UnableError, left_open
from legacy_adapters.inputs import Batch, rotated

#: Where heads of MMDetection's detectors give logits and boxes.
_HEAD = "bbox_head"

#: How MMDetection enters heads and detectors, 3.x and 2.x, and the parts of its DETR-like detectors. A module that has
#: such a method is followed and recorded, whatever its class.
METHODS = (
    "extract_feat", "forward_transformer", "pre_transformer", "forward_encoder", "pre_decoder", "forward_decoder",
    "loss", "predict", "loss_and_predict", "loss_by_feat", "predict_by_feat", "_forward",
    "forward_train", "simple_test", "get_bboxes",
)  # fmt: skip


class DetectionAdapter(Adapter):
    """Build and run a detector; a batch is a :class:`legacy_adapters.inputs.Batch`."""

    result_keys = ("bboxes", "scores", "labels")
    methods = METHODS

    def batch(self, tensors: Dict[str, torch.Tensor]) -> Batch:
        """Put named tensors together."""
        images = tensors["images"]
        return Batch.from_tensors(tensors, str(images.device), images.dtype)

    def perturbed(self, tensors: Dict[str, torch.Tensor]) -> List[torch.Tensor]:
        """Return the images; boxes of objects are whole pixels to some code bases."""
        return [tensors["images"]]

    def sizes(self, batch: Batch) -> List[List[int]]:
        """Return (h, w) of each image in pixels."""
        return [list(size) for size in batch.image_sizes]

    def objects(self, batch: Batch) -> List[int]:
        """Return how many objects each image has."""
        return [len(labels) for labels in batch.gt_labels]

    def rotated(self, tensors: Dict[str, torch.Tensor], by: int) -> Dict[str, torch.Tensor]:
        """Return the batch with image number ``by`` first, padded as it was."""
        return rotated(self.batch(tensors), by).to_tensors()

    @left_open
    def predict(self, model: Any, batch: Batch) -> List[Dict[str, torch.Tensor]]:
        """Run inference; return bboxes [n, 4] xyxy in pixels, scores [n] and labels [n] of each image."""
        raise UnableError("{} has no method predict(model, batch).".format(self.label))

    def classes(self, model: torch.nn.Module) -> Optional[int]:
        """Return the ``num_classes`` of the head of boxes; if none says so, the largest of any module."""
        counts = [(name, getattr(module, "num_classes", None)) for name, module in model.named_modules()]
        known = [(name, count) for name, count in counts if isinstance(count, int)]
        of_boxes = [count for name, count in known if _HEAD in name.split(".")]
        return max(of_boxes or [count for _, count in known], default=None)

    def predictor(self, model: torch.nn.Module) -> Optional[str]:
        """Name the head, if it has its usual name."""
        return _HEAD if isinstance(getattr(model, _HEAD, None), torch.nn.Module) else None
