"""Seeded inputs and weights that exercise a detector: prepared once, given to both sides as the same bits.

A seed gives the same bits on every machine, so that a golden file need not hold inputs or weights. Hence everything is
made of whole random numbers and of single additions and multiplications, which IEEE 754 rounds alike everywhere;
``torch.randn`` and interpolation have other last bits under other CPU kernels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Generator, Tensor

from converters.rules.layout import Layout
from legacy_adapters.family import Draw, Seeding
from legacy_adapters.ground.words import counted
from legacy_adapters.inputs import Batch

_PAD_DIVISOR = 32
_KINDS = ("plain", "twin", "small", "border")


def seeded_batch(
    sizes: Sequence[tuple[int, int]], seed: int, num_classes: int, objects: Sequence[int] | None = None,
    divisor: int = 1,
) -> Batch:
    """Make a batch of blob images with random objects, in which nothing is alike that differs in real use.

    Every image has its own scale factors; what it was padded to by itself is larger than it and, where there is
    room, smaller than what the batch is padded to. Among the objects of an image are one of a few pixels, one at its
    border and two that have one box and, of several classes, two labels.

    Args:
        sizes: (h, w) of each image in pixels; all are zero-padded to the largest height and width.
        seed: of everything random here.
        num_classes: labels lie in [0, num_classes).
        objects: number of objects of each image, 0 allowed; None draws 4 to 7 for each, 4 or 5 for the
            first of several and at least 2 more for the second.
        divisor: of the height and width that images are padded to.

    Returns:
        Images with about zero mean and unit variance, as after mmdet's preprocessor.

    Raises:
        ValueError: if ``objects`` does not give a number for every image.
    """
    if objects is not None and len(objects) != len(sizes):
        told = counted(len(objects), "image")
        raise ValueError(f"Objects are given for {told}; expected {len(sizes)}, one number per image.")
    generator = Generator().manual_seed(seed)
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes))
    images = torch.zeros(len(sizes), 3, height, width)
    bboxes, labels = [], []
    for i, (h, w) in enumerate(sizes):
        images[i, :, :h, :w] = _blobs(h, w, generator)
        drawn = int(torch.randint(4, 8, (), generator=generator))
        if i == 0 and len(sizes) > 1:
            drawn = 4 + drawn % 2
        if i == 1:  # so that the first image does not hold the most, nor nearly
            drawn = max(drawn, len(labels[0]) + 2)
        count = drawn if objects is None else objects[i]
        bboxes.append(_boxes(count, h, w, i, generator))
        labels.append(_labels(count, num_classes, generator))
    padded = tuple((min(_above(h), height), min(_above(w), width)) for h, w in sizes)
    return Batch(images, tuple(sizes), padded, _scale_factors(len(sizes), generator), bboxes, labels)


def _above(side: int) -> int:
    """Return the next multiple of 32 that is larger."""
    return (side // _PAD_DIVISOR + 1) * _PAD_DIVISOR


def _scale_factors(count: int, generator: Generator) -> tuple[tuple[float, float], ...]:
    """Return (w, h) of each image, no two numbers alike: multiples of 1/64 or, of many images, of a finer unit."""
    parts = 64
    while parts < 2 * count:
        parts *= 2
    steps = torch.randperm(parts, generator=generator)[: 2 * count].reshape(-1, 2)
    # from 0.5 to 1.5 and never 1, so that a factor left out is seen
    return tuple(tuple(0.5 + (step + 0.5) / parts for step in pair) for pair in steps.tolist())


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


def _boxes(count: int, h: int, w: int, image: int, generator: Generator) -> Tensor:
    """Return [count, 4] xyxy in pixels; kinds of boxes take turns, and images begin with different ones."""
    size = torch.tensor([w, h], dtype=torch.float32)
    boxes = torch.zeros(count, 4)
    for number in range(count):
        kind = _KINDS[(number + image) % len(_KINDS)]
        extent = (torch.rand(2, generator=generator) * 0.4 + 0.125) * size
        if kind == "small":
            extent = torch.rand(2, generator=generator) * 4.0 + 2.0
        corner = torch.rand(2, generator=generator) * (size - extent)
        boxes[number] = torch.cat([corner, corner + extent])
        if kind == "border" and image % 2:
            boxes[number, 2:] = size
        elif kind == "border":
            boxes[number, :2] = 0.0
        elif kind == "twin" and number:
            boxes[number] = boxes[number - 1]
    return boxes


def _labels(count: int, num_classes: int, generator: Generator) -> Tensor:
    """Return [count] labels; of several classes, no two neighbours have one label."""
    first = torch.randint(0, num_classes, (1,), generator=generator)
    steps = torch.randint(1, max(num_classes, 2), (count,), generator=generator)
    return (first + steps.cumsum(0)) % num_classes


def seeded_weights(layout: Layout, seed: int, seeding: Seeding = Seeding()) -> dict[str, Tensor]:
    """Make weights that are not degenerate.

    A freshly initialised detector hides errors: its box refinements are zero, its scores nearly constant, all norms
    are identities. Here every tensor is random, at a scale that keeps activations in range. A tensor depends on the
    seed and its own name only.

    Args:
        layout: the keys with dtype and shape; whole-number tensors (counters, index tables) are zeros.
        seed: of everything random here.
        seeding: what the family asks for beyond the general rules.
    """
    weights = {}
    for name, spec in layout.tensors.items():
        if spec.dtype != "float32":
            weights[name] = torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))
            continue
        digest = hashlib.sha256(f"weights/{seed}/{name}".encode()).digest()
        generator = Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        weights[name] = _rule_for(name, spec.shape, seeding)(spec.shape, generator)
    return weights


def _rule_for(name: str, shape: Sequence[int], seeding: Seeding) -> Callable[[tuple[int, ...], Generator], Tensor]:
    """Return how the tensor ``name`` is drawn.

    Detections show a wrong label of those classes only that are among them, so which class a query is must depend on
    the query. What all queries have in common decides that instead if it is large, and it grows with depth: by the mean
    of what a ReLU gives, by biases, by attention that averages. Hence rows that add up to zero, small biases, sharp
    attention, and branches that add less than what they are added to.
    """
    leaf = name.rsplit(".", 1)[-1]
    for draw in seeding.draws:
        if fnmatchcase(name, draw.pattern) and draw.shape in (None, tuple(shape)):
            return partial(_drawn, draw)
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return lambda s, g: torch.rand(s, generator=g) * 0.8 + 0.6
    if len(shape) == 1:
        return lambda s, g: _noise(s, g) * 0.03
    if not leaf.endswith("weight") or "embedding" in name:
        return _noise
    scale = math.prod(shape[1:]) ** -0.5 * _gain(name, seeding)
    return lambda s, g: _balanced(_noise(s, g)) * scale


def _drawn(draw: Draw, shape: tuple[int, ...], generator: Generator) -> Tensor:
    noise = _noise(shape, generator) * draw.spread
    return noise if draw.mean == 0.0 else noise + torch.tensor(draw.mean)


#: Of torch's attention: queries and keys far apart make it sharp, and what ends the branch is damped.
_GAINS = {"*in_proj_weight": 4.0, "*out_proj.weight": 0.5}


def _gain(name: str, seeding: Seeding) -> float:
    gains = (*seeding.gains.items(), *_GAINS.items())  # a family's own come first
    return next((gain for pattern, gain in gains if fnmatchcase(name, pattern)), 1.0)


def _balanced(noise: Tensor) -> Tensor:
    """Return weights [n, m, ...] of unit variance that add up to zero over m: each is the difference of neighbours."""
    return noise if noise.size(1) == 1 else (noise - noise.roll(1, 1)) * math.sqrt(0.5)
