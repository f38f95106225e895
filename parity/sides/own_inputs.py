"""Inputs of a run that a user brings: a file of named tensors, or image files of which a batch is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from converters.errors import listed
from ddq_port import requirements
from legacy_adapters.ground.words import counted, one_line
from legacy_adapters.inputs import PREDICT, TRAIN, Batch

from .settings import SettingsError

_PHASES = (PREDICT, TRAIN)
#: The mean and deviation of ImageNet's channels, RGB, in units of 1/255: what most detectors normalise with.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
#: Without --size an image is shrunk to fit into this, shorter and longer side.
FIT = (800, 1333)
_IMAGES, _PER_IMAGE = "images", ("gt_bboxes", "gt_labels")
_SIZES = ("image_sizes", "pad_shapes", "scale_factors")

Inputs = Mapping[str, Tensor]


def of_file(path: Path, made: Mapping[str, Inputs], detects: bool) -> dict[str, Inputs]:
    """Return the inputs of both phases that a safetensors file holds.

    A name is ``NAME`` for both phases, or ``predict.NAME`` and ``train.NAME``. A detector's file needs ``images`` only: the
    rest of a batch is then taken as it would be made up, boxes within the image included.

    Args:
        path: the file.
        made: what would be given without it, by phase; it tells which names there are.
        detects: the inputs are a batch of images, see :meth:`legacy_adapters.inputs.Batch.to_tensors`.

    Raises:
        SettingsError: if it is no such file, or lacks a name, or has one that nothing takes.
    """
    try:
        held = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise SettingsError(f"{path} cannot be read as safetensors: {one_line(str(error))}.") from error
    given: dict[str, Inputs] = {}
    for phase in _PHASES:
        others = tuple(f"{other}." for other in _PHASES if other != phase)
        mine = {n.removeprefix(f"{phase}."): t for n, t in held.items() if not n.startswith(others)}
        given[phase] = _own(_batch_of(path, mine) if detects else _checked(path, mine, made[phase], phase))
    return given


def _own(tensors: Inputs) -> Inputs:
    """Return copies: a file of both phases holds no tensor twice."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def _checked(path: Path, held: Inputs, made: Inputs, phase: str) -> Inputs:
    missing, more = sorted(made.keys() - held.keys()), sorted(held.keys() - made.keys())
    if missing or more:
        told = f"lacks {listed(missing)}" if missing else f"has {listed(more)}, which nothing takes"
        raise SettingsError(f"{path} {told}; phase {phase} of this family has the inputs {listed(sorted(made), 10)}.")
    for name, tensor in held.items():
        if tensor.dtype != made[name].dtype:
            raise SettingsError(
                f"`{name}` of {path} is {_kind(tensor.dtype)}, expected {_kind(made[name].dtype)} as the family makes it."
            )
    return {name: held[name].contiguous() for name in sorted(held)}


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _batch_of(path: Path, held: Inputs) -> Inputs:
    images = held.get(_IMAGES)
    if images is None or images.dim() != 4 or images.dtype != torch.float32 or not images.numel():
        found = "none" if images is None else f"{_kind(images.dtype)}{list(images.shape)}"
        raise SettingsError(f"{path} needs `{_IMAGES}`, float32 [bs, channels, height, width]; found {found}.")
    count, (height, width) = len(images), images.shape[-2:]
    named = {f"{name}.{index}" for name in _PER_IMAGE for index in range(count)}
    strange = sorted(held.keys() - named - {_IMAGES, *_SIZES})
    if strange:
        raise SettingsError(
            f"{path} has {listed(strange)}, which is no input; a batch has {listed((_IMAGES, *_SIZES), 4)} and, of each image, "
            f"{listed(f'{name}.0' for name in _PER_IMAGE)}."
        )
    objects = {name: held[name] for name in sorted(named & held.keys())}
    if objects and objects.keys() != named:
        raise SettingsError(f"{path} lacks {listed(sorted(named - objects.keys()))}; give the objects of every image or of none.")
    whole = _batch(images, [(height, width)] * count, [(1.0, 1.0)] * count)
    return {**whole, **{name: tensor.contiguous() for name, tensor in held.items()}}


def of_images(paths: Sequence[Path], sizes: Sequence[tuple[int, int]] | None, divisor: int) -> dict[str, Inputs]:
    """Return a batch of image files for both phases, resized, normalised and padded.

    Both sides are given the same tensors, so what matters is that they are of real images; how each side itself would make
    them is compared by ``ddq-parity preprocess``.

    Args:
        paths: of the files.
        sizes: (h, w) of each; None shrinks an image to fit into :data:`FIT`.
        divisor: of the height and width that images are padded to.

    Raises:
        SettingsError: if a file is no image, or there are not as many sizes.
    """
    if sizes is not None and len(sizes) != len(paths):
        raise SettingsError(f"--size gives {counted(len(sizes), 'size')} for {counted(len(paths), 'image')}; give one for each.")
    images, whole, factors = [], [], []
    for number, path in enumerate(paths):
        image = _read(path)
        before = tuple(image.shape[-2:])
        size = _fitting(before) if sizes is None else sizes[number]
        image = torch.nn.functional.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        images.append((image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None])
        whole.append(size)
        factors.append((size[1] / before[1], size[0] / before[0]))
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*whole))
    padded = torch.zeros(len(images), 3, height, width)
    for number, image in enumerate(images):
        padded[number, :, : image.size(1), : image.size(2)] = image
    batch = _batch(padded, whole, factors)
    return {phase: _own(batch) for phase in _PHASES}


def _read(path: Path) -> Tensor:
    """Return an image as float32 [3, h, w] in 0 to 255, RGB, turned as its EXIF data ask for."""
    requirements.check(("PIL",))
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SettingsError(f"{path} is no image that can be read: {one_line(str(error))}.") from error
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return raw.reshape(image.height, image.width, 3).permute(2, 0, 1).float()


def _fitting(size: tuple[int, ...]) -> tuple[int, int]:
    short, long = sorted(size)
    scale = min(1.0, FIT[0] / short, FIT[1] / long)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _batch(images: Tensor, sizes: Sequence[tuple[int, int]], factors: Sequence[tuple[float, float]]) -> Inputs:
    """Return a batch with two made-up objects in each image, of label 0: what a training pass needs, whatever the classes."""
    boxes = [torch.tensor([[w / 8, h / 8, w / 2, h / 2], [w / 3, h / 4, w * 0.9, h * 0.8]]) for h, w in sizes]
    labels = [torch.zeros(2, dtype=torch.int64) for _ in sizes]
    padded = tuple(tuple(images.shape[-2:]) for _ in sizes)
    return Batch(images.contiguous(), tuple(sizes), padded, tuple(factors), boxes, labels).to_tensors()
