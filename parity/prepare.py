"""Seeded inputs and weights that exercise a detector: prepared once, given to both sides as the same bits.

A seed gives the same bits on every machine, so that a golden file need not hold inputs or weights. Hence everything is
made of whole random numbers and of single additions and multiplications, which IEEE 754 rounds alike everywhere;
``torch.randn`` and interpolation have other last bits under other CPU kernels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from converters.layout import Layout
from legacy_adapters.inputs import Batch

#: Mean of the logit that seeded weights add to the width and height of a box at every refinement.
BOX_GROWTH = 2.0


def seeded_batch(
    sizes: Sequence[tuple[int, int]], seed: int, num_classes: int, objects: Sequence[int] | None = None
) -> Batch:
    """Make a batch of blob images with random objects.

    Args:
        sizes: (h, w) of each image in pixels; all are zero-padded to the largest height and width.
        seed: of everything random here.
        num_classes: labels lie in [0, num_classes).
        objects: number of objects of each image, 0 allowed; None draws 2 to 7 for each.

    Returns:
        Images with about zero mean and unit variance, as after mmdet's preprocessor.

    Raises:
        ValueError: if ``objects`` does not give a number for every image.
    """
    if objects is not None and len(objects) != len(sizes):
        raise ValueError(f"Objects are given for {len(objects)} images; expected {len(sizes)}, one number per image.")
    generator = Generator().manual_seed(seed)
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    images = torch.zeros(len(sizes), 3, height, width)
    bboxes, labels = [], []
    for i, (h, w) in enumerate(sizes):
        images[i, :, :h, :w] = _blobs(h, w, generator)
        drawn = int(torch.randint(2, 8, (), generator=generator))
        count = drawn if objects is None else objects[i]
        bboxes.append(_boxes(count, h, w, generator))
        labels.append(torch.randint(0, num_classes, (count,), generator=generator))
    return Batch(images, tuple(sizes), bboxes, labels)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a training step's batch: another one for every step and for every ``seed``."""
    digest = hashlib.sha256(f"step {step} of {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _blobs(h: int, w: int, generator: Generator) -> Tensor:
    """Return [3, h, w]: structure at two scales plus noise, so that neighbouring tokens differ but are related."""
    image = _noise((3, h, w), generator) * 0.3
    for cells in (4, 16):
        rows = _stretched(_noise((3, cells, cells), generator), h)  # [3, h, cells]
        image = image + _stretched(rows.transpose(1, 2), w).transpose(1, 2)
    return image


def _noise(shape: Sequence[int], generator: Generator) -> Tensor:
    """Return uniform noise of zero mean and unit variance."""
    return (torch.rand(tuple(shape), generator=generator) * 2.0 - 1.0) * math.sqrt(3.0)


def _stretched(coarse: Tensor, length: int) -> Tensor:
    """Stretch the middle axis of ``coarse`` [c, n, m] to ``length`` by linear interpolation between cell centres."""
    cells = coarse.size(1)
    at = [min(max((i + 0.5) * cells / length - 0.5, 0.0), cells - 1.0) for i in range(length)]
    before = torch.tensor([int(x) for x in at])
    share = torch.tensor([x - int(x) for x in at])[None, :, None]
    after = (before + 1).clamp(max=cells - 1)
    return coarse[:, before] * (1.0 - share) + coarse[:, after] * share


def _boxes(count: int, h: int, w: int, generator: Generator) -> Tensor:
    """Return [count, 4] xyxy in pixels, each at least an eighth of the image wide and high."""
    size = torch.tensor([w, h], dtype=torch.float32)
    extent = (torch.rand(count, 2, generator=generator) * 0.4 + 0.125) * size
    corner = torch.rand(count, 2, generator=generator) * (size - extent)
    return torch.cat([corner, corner + extent], dim=1)


def seeded_weights(layout: Layout, seed: int) -> dict[str, Tensor]:
    """Make weights that are not degenerate.

    A freshly initialised detector hides errors: its box refinements are zero, its scores nearly constant, all norms
    are identities. Here every tensor is random, at a scale that keeps activations in range. A tensor depends on the
    seed and its own name only.

    Args:
        layout: the keys with dtype and shape; whole-number tensors (counters, index tables) are zeros.
        seed: of everything random here.
    """
    weights = {}
    for name, spec in layout.tensors.items():
        if spec.dtype != "float32":
            weights[name] = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
            continue
        digest = hashlib.sha256(f"weights/{seed}/{name}".encode()).digest()
        generator = Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        weights[name] = _rule_for(name, spec.shape)(spec.shape, generator)
    return weights


def _rule_for(name: str, shape: Sequence[int]) -> Callable[[tuple[int, ...], Generator], Tensor]:
    """Return how the tensor ``name`` is drawn.

    Detections show a wrong label of those classes only that are among them, so which class a query is must depend on
    the query. What all queries have in common decides that instead if it is large, and it grows with depth: by the mean
    of what a ReLU gives, by biases, by attention that averages. Hence rows that add up to zero, small biases, sharp
    attention, and branches that add less than what they are added to.
    """
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return lambda s, g: torch.rand(s, generator=g) * 0.8 + 0.6
    if "sampling_offsets.bias" in name:
        return lambda s, g: _noise(s, g) * 2.0
    if "cls_branches" in name and leaf == "bias":
        return lambda s, g: _noise(s, g) * 0.1 - 2.0
    if "reg_branches" in name and tuple(shape) == (4,):
        # boxes grow from layer to layer until some overlap enough for the selection to drop them
        return lambda s, g: _noise(s, g) * 0.1 + torch.tensor([0.0, 0.0, BOX_GROWTH, BOX_GROWTH])
    if len(shape) == 1:
        return lambda s, g: _noise(s, g) * 0.03
    if not leaf.endswith("weight") or "embedding" in name:
        return _noise
    scale = math.prod(shape[1:]) ** -0.5 * _gain(name)
    return lambda s, g: _balanced(_noise(s, g)) * scale


#: By the end of a weight's name: queries and keys far apart make attention sharp, and what ends a branch of the
#: transformer is damped.
_GAINS = {"in_proj_weight": 4.0, "out_proj.weight": 0.5, "output_proj.weight": 0.5, "ffn.layers.1.weight": 0.5}


def _gain(name: str) -> float:
    return next((gain for end, gain in _GAINS.items() if name.endswith(end)), 1.0)


def _balanced(noise: Tensor) -> Tensor:
    """Return weights [n, m, ...] of unit variance that add up to zero over m: each is the difference of neighbours."""
    return noise if noise.size(1) == 1 else (noise - noise.roll(1, 1)) * math.sqrt(0.5)
