"""RoIAlign: recordings of the compiled operator, the loop of its kernel, numeric gradients and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import ddq_port  # noqa: F401  registers the stand-in that `mmcv.ops` needs below

KINDS = [*itertools.product(("avg", "max"), (0, 2), (True, False))]


def roi_align(*arguments: Any) -> Tensor:
    """Pool as a detector does, through mmcv's own function."""
    from mmcv.ops import roi_align as operator

    return operator(*arguments)


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return features of 2 images of 28x36 pixels at stride 4, and RoIs inside, across the border, flat and outside."""
    features = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0), dtype=dtype)
    rois = [
        [0, 3.3, 2.2, 20.1, 25.7], [1, -5.0, -4.0, 50.0, 40.0], [1, 10.0, 10.0, 10.0, 10.0],
        [0, 30.0, 20.0, 35.5, 27.0], [1, 60.0, 50.0, 70.0, 80.0], [0, 0.0, 0.0, 35.9, 27.9],
    ]  # fmt: skip
    return features, torch.tensor(rois, dtype=dtype)


def sample(plane: Tensor, y: float, x: float) -> float:
    """Interpolate one plane as the kernel does."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    low, high = y - top, x - left
    upper = (1 - high) * plane[top, left] + high * plane[top, right]
    lower = (1 - high) * plane[bottom, left] + high * plane[bottom, right]
    return float((1 - low) * upper + low * lower)


def kernel_loop(features: Tensor, roi: Tensor, mode: str, ratio: int, aligned: bool) -> Tensor:
    """Pool one RoI into 2x3 bins at scale 1/4, bin by bin and sample by sample."""
    image, *corners = roi.tolist()
    x1, y1, x2, y2 = (corner / 4 - (0.5 if aligned else 0.0) for corner in corners)
    size = [y2 - y1, x2 - x1] if aligned else [max(y2 - y1, 1.0), max(x2 - x1, 1.0)]
    high, wide = size[0] / 2, size[1] / 3
    rows, columns = (ratio or math.ceil(extent) for extent in (high, wide))
    pooled = torch.zeros(features.shape[1], 2, 3, dtype=features.dtype)
    for channel, row, column in itertools.product(range(features.shape[1]), range(2), range(3)):
        values = [
            sample(
                features[int(image), channel], y1 + row * high + (iy + 0.5) * high / rows,
                x1 + column * wide + (ix + 0.5) * wide / columns,
            )
            for iy, ix in itertools.product(range(rows), range(columns))
        ]  # fmt: skip
        average = sum(values) / max(len(values), 1)
        pooled[channel, row, column] = average if mode == "avg" else max(values, default=-10000.0)
    return pooled


@pytest.mark.parametrize(("mode", "ratio", "aligned"), KINDS)
def test_equals_the_kernels_loop(mode: str, ratio: int, aligned: bool) -> None:
    features, rois = inputs()
    pooled = roi_align(features, rois, (2, 3), 0.25, ratio, mode, aligned)
    expected = torch.stack([kernel_loop(features, roi, mode, ratio, aligned) for roi in rois])
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "ratio", "aligned"), KINDS)
def test_gradient_is_that_of_the_forward_function(mode: str, ratio: int, aligned: bool) -> None:
    features, rois = inputs()
    leaf = features.requires_grad_()

    def pool(maps: Tensor) -> Tensor:
        return roi_align(maps, rois, (2, 3), 0.25, ratio, mode, aligned)

    assert torch.autograd.gradcheck(pool, (leaf,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_half_is_computed_in_float32_and_rounded_once(dtype: torch.dtype, mode: str) -> None:
    features, rois = (part.to(dtype) for part in inputs())
    leaf, exact = features.clone().requires_grad_(), features.float().requires_grad_()
    pooled = roi_align(leaf, rois, (2, 3), 0.25, 2, mode, True)
    reference = roi_align(exact, rois.float(), (2, 3), 0.25, 2, mode, True)
    assert pooled.dtype == dtype and torch.equal(pooled, reference.to(dtype))
    pooled.sum().backward()
    assert leaf.grad.dtype == dtype and leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0


def test_many_rois_are_pooled_as_one_by_one() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 64, 20, 30, generator=generator, requires_grad=True)
    corners, sizes = torch.rand(400, 2, generator=generator) * 100, torch.rand(400, 2, generator=generator) * 60
    images = torch.randint(0, 2, (400, 1), generator=generator).float()
    rois = torch.cat([images, corners, corners + sizes], 1)
    pooled = roi_align(features, rois, 7, 0.25, 0, "avg", True)  # more than one part
    for one in (slice(place, place + 1) for place in range(0, 400, 37)):
        assert torch.equal(pooled[one], roi_align(features, rois[one], 7, 0.25, 0, "avg", True))
    (gradient,) = torch.autograd.grad(pooled.sum(), features)
    # samples of a RoI weigh as much as a bin together, if they lie on the map
    assert float(gradient.double().sum()) <= 400 * 64 * 49


def test_no_rois_give_no_features() -> None:
    features, rois = inputs()
    leaf = features.requires_grad_()
    pooled = roi_align(leaf, rois[:0], (2, 3), 0.25, 2, "avg", True)
    assert pooled.shape == (0, 3, 2, 3)
    pooled.sum().backward()
    assert not leaf.grad.any()


def test_negative_sizes_are_refused_if_aligned() -> None:
    features, rois = inputs()
    rois[3] = torch.tensor([0, 8.0, 4.0, 7.5, 9.0])
    with pytest.raises(RuntimeError, match=r"may have a negative size, found 1 of 6, first RoI 3 with .* = \(8.0, 4.0"):
        roi_align(features, rois, (2, 3), 0.25, 2, "avg", True)
    assert roi_align(features, rois, (2, 3), 0.25, 2, "avg", False).isfinite().all()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [((2, 3), math.nan, "found 1 of 6 that"), ((2, 0), 2.0, "images 0 to 1, found 0 to 2"), ((2, 0), -1.0, "found -1")],
)
def test_rois_of_nowhere_are_refused(place: tuple[int, int], value: float, said: str) -> None:
    features, rois = inputs()
    rois[place] = value
    with pytest.raises(ValueError, match=said):
        roi_align(features, rois, (2, 3), 0.25, 2, "avg", False)
