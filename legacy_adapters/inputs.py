"""What both sides are given: named tensors, and the batch of images with objects that detectors make of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

import torch

#: Phases for which a file of inputs has a batch: inference, and losses and gradients.
PREDICT, TRAIN = "predict", "train"

#: Phases of inference with boxes of the resized image, and without post-processing.
UNSCALED, TENSOR = "unscaled", "tensor"
VARIANTS = (UNSCALED, TENSOR)


def of_phase(tensors: Mapping[str, torch.Tensor], phase: str) -> Dict[str, torch.Tensor]:
    """Take the inputs of ``predict`` or ``train`` out of a file that holds those of each."""
    prefix = phase + "."
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def placed(tensors: Mapping[str, torch.Tensor], device: str, dtype: torch.dtype) -> Dict[str, torch.Tensor]:
    """Return inputs on ``device``, those of float32 as ``dtype``; what has another type is a number of its own."""
    return {
        name: tensor.to(device, dtype if tensor.dtype == torch.float32 else tensor.dtype)
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True)
class Batch:
    """A prepared batch: normalised, padded, with ground truth.

    Attributes:
        images: [bs, 3, H, W] float, normalised and zero-padded to the largest height and width.
        image_sizes: (h, w) of each unpadded image in pixels.
        pad_shapes: (h, w) of each image as padded by itself, before it was padded with the others.
        scale_factors: (w, h) by which each original image was resized to this one.
        gt_bboxes: per image [n, 4] xyxy in pixels of the unpadded image.
        gt_labels: per image [n] int64.
    """

    images: torch.Tensor
    image_sizes: Tuple[Tuple[int, int], ...]
    pad_shapes: Tuple[Tuple[int, int], ...]
    scale_factors: Tuple[Tuple[float, float], ...]
    gt_bboxes: List[torch.Tensor]
    gt_labels: List[torch.Tensor]

    def to_tensors(self) -> Dict[str, torch.Tensor]:
        """Return the batch as named tensors, for one safetensors file."""
        tensors = {
            "images": self.images,
            "image_sizes": torch.tensor(self.image_sizes, dtype=torch.int64),
            "pad_shapes": torch.tensor(self.pad_shapes, dtype=torch.int64),
            "scale_factors": torch.tensor(self.scale_factors, dtype=torch.float64),
        }
        for i, (bboxes, labels) in enumerate(zip(self.gt_bboxes, self.gt_labels)):
            tensors["gt_bboxes.{}".format(i)] = bboxes
            tensors["gt_labels.{}".format(i)] = labels
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Dict[str, torch.Tensor], device: str, dtype: torch.dtype) -> "Batch":
        """Read :meth:`to_tensors` back, on ``device``, images and boxes as ``dtype``."""
        sizes, padded = (tensors[name].tolist() for name in ("image_sizes", "pad_shapes"))
        return cls(
            images=tensors["images"].to(device, dtype),
            image_sizes=tuple((h, w) for h, w in sizes),
            pad_shapes=tuple((h, w) for h, w in padded),
            scale_factors=tuple((w, h) for w, h in tensors["scale_factors"].tolist()),
            gt_bboxes=[tensors["gt_bboxes.{}".format(i)].to(device, dtype) for i in range(len(sizes))],
            gt_labels=[tensors["gt_labels.{}".format(i)].to(device) for i in range(len(sizes))],
        )


@dataclass(frozen=True)
class Preprocessing:
    """How a side makes its network's input of image files.

    Attributes:
        pipelines: transforms of :data:`TEST` and :data:`TRAINING`, in order; each takes a dict and gives one, or None.
        batch: makes the network's input of what the pipelines of several images gave, for training or not.
        settings: of ``batch``: mean, deviation, order of channels, padding.
    """

    pipelines: Mapping[str, Sequence[Any]]
    batch: Callable[[List[Any], bool], Any]
    settings: Mapping[str, Any]


#: The pipelines of a side.
TEST, TRAINING = "test", "training"


def masks_of(batch: Batch) -> List[torch.Tensor]:
    """Return a mask of every object, [n, h, w] uint8 of the unpadded image: the ellipse that its box bounds.

    A pixel is of it if its centre is. Additions and products in float64 decide that, which round alike everywhere.
    """
    return [_ellipses(boxes.double(), size) for boxes, size in zip(batch.gt_bboxes, batch.image_sizes)]


def _ellipses(boxes: torch.Tensor, size: Tuple[int, int]) -> torch.Tensor:
    rows, columns = (torch.arange(extent, dtype=torch.float64, device=boxes.device) + 0.5 for extent in size)
    left, top, right, bottom = (side[:, None, None] for side in boxes.unbind(1))
    x = (columns[None, None] * 2.0 - (left + right)) * (bottom - top)  # [n, 1, w]
    y = (rows[None, :, None] * 2.0 - (top + bottom)) * (right - left)  # [n, h, 1]
    extent = (right - left) * (bottom - top)
    return (x * x + y * y <= extent * extent).to(torch.uint8)


def rotated(batch: Batch, by: int) -> Batch:
    """Return the batch with its images in another order: number ``by`` comes first, padded as it was."""
    by %= len(batch.images)
    turned = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "images"}
    images = torch.cat([batch.images[by:], batch.images[:by]])
    return replace(batch, images=images, **{name: value[by:] + value[:by] for name, value in turned.items()})
