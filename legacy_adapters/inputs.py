"""The batch both sides are given, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Dict, List, Tuple

import torch


#: Phases of inference with boxes of the resized image, and without post-processing.
UNSCALED, TENSOR = "unscaled", "tensor"
VARIANTS = (UNSCALED, TENSOR)


@dataclass(frozen=True)
class Batch:
    """A prepared batch: normalised, padded, with ground truth.

    Attributes:
        images: [bs, 3, H, W] float, normalised and zero-padded to the largest image.
        image_sizes: (h, w) of each unpadded image in pixels.
        gt_bboxes: per image [n, 4] xyxy in pixels of the unpadded image.
        gt_labels: per image [n] int64.
    """

    images: torch.Tensor
    image_sizes: Tuple[Tuple[int, int], ...]
    gt_bboxes: List[torch.Tensor]
    gt_labels: List[torch.Tensor]

    def to_tensors(self) -> Dict[str, torch.Tensor]:
        """Return the batch as named tensors, for one safetensors file."""
        tensors = {"images": self.images, "image_sizes": torch.tensor(self.image_sizes, dtype=torch.int64)}
        for i, (bboxes, labels) in enumerate(zip(self.gt_bboxes, self.gt_labels)):
            tensors["gt_bboxes.{}".format(i)] = bboxes
            tensors["gt_labels.{}".format(i)] = labels
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Dict[str, torch.Tensor], device: str, dtype: torch.dtype) -> "Batch":
        """Read :meth:`to_tensors` back, on ``device``, images and boxes as ``dtype``."""
        sizes = tensors["image_sizes"].tolist()
        return cls(
            images=tensors["images"].to(device, dtype),
            image_sizes=tuple((int(h), int(w)) for h, w in sizes),
            gt_bboxes=[tensors["gt_bboxes.{}".format(i)].to(device, dtype) for i in range(len(sizes))],
            gt_labels=[tensors["gt_labels.{}".format(i)].to(device) for i in range(len(sizes))],
        )


def first_image(batch: Batch) -> Batch:
    """Return the first image alone, as it was padded."""
    count = len(batch.images)
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(
        batch, **{name: value[:1] for name, value in values.items() if hasattr(value, "__len__") and len(value) == count}
    )
