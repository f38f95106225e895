"""The stand-in operators against mmcv's and mmdet's pure-torch versions and autograd."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import ddq_port  # noqa: F401  registers the stand-in that `mmcv.ops` needs below
from ddq_port.ops import mmcv_ext

SHAPES = torch.tensor([[9, 11], [5, 6], [3, 3], [1, 2]])

# Rounding 1 - p by eps moves its logarithm by eps / (1 - p), which is largest at the largest logit, 6.
FOCAL_TOLERANCES = [(dtype, torch.finfo(dtype).eps * 404) for dtype in (torch.float32, torch.float64)]


def attention_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return value, shapes, starts, locations (some outside the image), weights: 2 images, 3 heads, 17 queries."""
    generator = torch.Generator().manual_seed(0)
    areas = SHAPES.prod(1)
    starts = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
    value = torch.randn(2, int(areas.sum()), 3, 8, generator=generator, dtype=dtype)
    locations = torch.rand(2, 17, 3, 4, 5, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(2, 17, 3, 20, generator=generator, dtype=dtype).softmax(-1).view(2, 17, 3, 4, 5)
    return value, SHAPES, starts, locations, weights


def focal_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return logits [200, 7] in [-6, 6] and targets [200] in 0..7, where 7 is background."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.rand(200, 7, generator=generator, dtype=dtype) * 12 - 6
    return logits, torch.randint(0, 8, (200,), generator=generator)


def reference_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """mmdet's ``py_sigmoid_focal_loss``, elementwise."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    one_hot = torch.nn.functional.one_hot(target, num_classes=logits.shape[1] + 1)[:, : logits.shape[1]]
    return py_sigmoid_focal_loss(logits, one_hot, gamma=gamma, alpha=alpha, reduction="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_forward_is_mmcvs_torch_version_bit_for_bit(dtype: torch.dtype) -> None:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    value, shapes, starts, locations, weights = attention_inputs(dtype)
    output = mmcv_ext.ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=64)
    assert torch.equal(output, multi_scale_deformable_attn_pytorch(value, shapes, locations, weights))


def test_attention_backward_equals_autograd() -> None:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    value, shapes, starts, locations, weights = attention_inputs()
    leaves = [t.clone().requires_grad_() for t in (value, locations, weights)]
    output = multi_scale_deformable_attn_pytorch(leaves[0], shapes, leaves[1], leaves[2])
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad(output, leaves, grad_output)
    buffers = [torch.zeros_like(t) for t in (value, locations, weights)]
    returned = mmcv_ext.ms_deform_attn_backward(
        value, shapes, starts, locations, weights, grad_output, *buffers, im2col_step=64
    )
    assert returned is None
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(buffers, expected))


def test_attention_through_mmcvs_autograd_function_passes_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcv.ops import multi_scale_deform_attn

    monkeypatch.setattr(multi_scale_deform_attn, "ext_module", mmcv_ext)  # also where mmcv is compiled
    value, shapes, starts, locations, weights = attention_inputs(torch.float64)
    leaves = [value[:1].requires_grad_(), locations[:1, :2].requires_grad_(), weights[:1, :2].requires_grad_()]

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        function = multi_scale_deform_attn.MultiScaleDeformableAttnFunction
        return function.apply(value, shapes, starts, locations, weights, 64)

    assert torch.autograd.gradcheck(attend, leaves, fast_mode=True)


def kernel_attention(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The CUDA kernel's loop (``ms_deform_attn_cuda_kernel.cuh``) for one image and one head, point by point."""
    output = torch.zeros(locations.shape[0], value.shape[1], dtype=value.dtype)
    start = 0
    for level, (height, width) in enumerate(SHAPES.tolist()):
        for query, point in itertools.product(range(locations.shape[0]), range(locations.shape[2])):
            x = locations[query, level, point, 0].item() * width - 0.5
            y = locations[query, level, point, 1].item() * height - 0.5
            left, top = math.floor(x), math.floor(y)
            for column, row in itertools.product((left, left + 1), (top, top + 1)):
                if 0 <= column < width and 0 <= row < height:
                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                    output[query] += weights[query, level, point] * share * value[start + row * width + column]
        start += height * width
    return output


def test_attention_equals_the_kernels_loop() -> None:
    value, shapes, starts, locations, weights = attention_inputs(torch.float64)
    output = mmcv_ext.ms_deform_attn_forward(value, shapes, starts, locations, weights, 64)
    expected = kernel_attention(value[1, :, 2], locations[1, :, 2], weights[1, :, 2])
    torch.testing.assert_close(output[1, :, 16:24], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_keeps_half_dtypes_and_computes_in_float32(dtype: torch.dtype) -> None:
    value, shapes, starts, locations, weights = attention_inputs()
    value, locations, weights = value.to(dtype), locations.to(dtype), weights.to(dtype)
    output = mmcv_ext.ms_deform_attn_forward(value, shapes, starts, locations, weights, 64)
    exact = mmcv_ext.ms_deform_attn_forward(value.float(), shapes, starts, locations.float(), weights.float(), 64)
    assert output.dtype == dtype and torch.equal(output, exact.to(dtype))
    buffers = [torch.zeros_like(t) for t in (value, locations, weights)]
    mmcv_ext.ms_deform_attn_backward(value, shapes, starts, locations, weights, torch.ones_like(output), *buffers, 64)
    assert all(b.dtype == dtype and b.abs().sum() > 0 for b in buffers)


@pytest.mark.parametrize(("dtype", "tolerance"), FOCAL_TOLERANCES)
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_focal_forward_equals_mmdet(dtype: torch.dtype, tolerance: float, gamma: float, alpha: float) -> None:
    logits, target = focal_inputs(dtype)
    output = torch.full_like(logits, 99.0)
    mmcv_ext.sigmoid_focal_loss_forward(logits, target, logits.new_empty(0), output, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(output, reference_focal(logits, target, gamma, alpha), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), FOCAL_TOLERANCES)
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.6)])
def test_focal_backward_equals_autograd(dtype: torch.dtype, tolerance: float, gamma: float, alpha: float) -> None:
    logits, target = focal_inputs(dtype)
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(reference_focal(leaf, target, gamma, alpha).sum(), leaf)
    gradient = torch.full_like(logits, 99.0)
    mmcv_ext.sigmoid_focal_loss_backward(logits, target, logits.new_empty(0), gradient, gamma=gamma, alpha=alpha)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=tolerance)


def test_focal_saturates_as_the_kernel_does() -> None:
    logits = torch.tensor([[40.0, -200.0]])
    loss, gradient = torch.zeros(1, 2), torch.zeros(1, 2)
    arguments = (logits, torch.tensor([1]), torch.empty(0))
    mmcv_ext.sigmoid_focal_loss_forward(*arguments, loss, 2.0, 0.25)
    mmcv_ext.sigmoid_focal_loss_backward(*arguments, gradient, 2.0, 0.25)
    floor = torch.tensor(torch.finfo(torch.float32).tiny).log().item()
    torch.testing.assert_close(loss, torch.tensor([[-0.75 * floor, -0.25 * floor]]))
    torch.testing.assert_close(gradient, torch.tensor([[0.75, -0.25]]))


def test_focal_class_weights() -> None:
    logits, target = focal_inputs()
    target = target.clamp(max=6)
    weight = torch.arange(1.0, 8.0)
    plain, weighted = torch.zeros_like(logits), torch.zeros_like(logits)
    mmcv_ext.sigmoid_focal_loss_forward(logits, target, torch.empty(0), plain, 2.0, 0.25)
    mmcv_ext.sigmoid_focal_loss_forward(logits, target, weight, weighted, 2.0, 0.25)
    torch.testing.assert_close(weighted, plain * weight[target][:, None])
    target[0], target[1] = 0, 7
    with pytest.raises(ValueError, match=r"every target must lie in \[0, 7\), found 0 to 7"):
        mmcv_ext.sigmoid_focal_loss_forward(logits, target, weight, weighted, 2.0, 0.25)


def test_focal_half_stays_finite() -> None:
    logits = torch.tensor([[-30.0, 30.0, 0.5]], dtype=torch.float16)
    output = torch.zeros_like(logits)
    mmcv_ext.sigmoid_focal_loss_forward(logits, torch.tensor([0]), logits.new_empty(0), output, 2.0, 0.25)
    assert output.dtype == torch.float16 and bool(output.isfinite().all())


def test_nms_has_mmcvs_signature() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    keep = mmcv_ext.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), iou_threshold=0.5, offset=0)
    assert keep.tolist() == [1, 2]


def test_other_operators_say_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"mmcv operator `carafe_naive_forward` is not in .* install the compiled mmcv .* \[mmcv\]"):
        mmcv_ext.carafe_naive_forward(1, two=2)
    assert mmcv_ext.carafe_naive_forward.__name__ == "carafe_naive_forward"
    assert not hasattr(mmcv_ext, "__wrapped__")
