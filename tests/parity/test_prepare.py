"""Seeded inputs and weights: the same bits every time, and nothing in them that would hide an error."""

import math

import pytest
import torch

from converters.rules import layout
from converters.rules.layout import Layout, TensorSpec
from legacy_adapters import registry
from legacy_adapters.family import Seeding
from legacy_adapters.inputs import masks_of
from parity.cli import early
from parity.sides.prepare import seeded_batch, seeded_weights
from parity.sides.sizes import varied
from tests.models import layout_of as stored_layout

SIZES = ((48, 64), (40, 80), (64, 32))
CLASSES = 5


def bits(tensors):
    return {name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def tiny():
    return stored_layout("tiny_4scale", side="legacy")


@pytest.fixture(scope="module")
def weights(tiny):
    return seeded_weights(tiny, seed=0)


@pytest.mark.parametrize("seed", [0, 7])
def test_batch_is_the_same_bits_for_the_same_seed_whatever_else_was_drawn(seed):
    first = bits(seeded_batch(SIZES, seed, CLASSES).to_tensors())
    torch.manual_seed(123)
    torch.rand(11)
    assert bits(seeded_batch(SIZES, seed, CLASSES).to_tensors()) == first


def test_batch_and_weights_leave_the_global_generator_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seeded_batch(SIZES, 0, CLASSES)
    seeded_weights(tiny, 0)
    assert torch.equal(torch.rand(3), expected)


def test_batch_of_another_seed_differs_in_all_it_holds():
    one, two = (seeded_batch(SIZES, seed, num_classes=1000).to_tensors() for seed in (0, 1))
    for name in ("image_sizes", "pad_shapes"):
        assert torch.equal(one.pop(name), two.pop(name))
    one, two = bits(one), bits(two)
    assert [name for name in one if one[name] == two.get(name)] == []


@pytest.mark.parametrize("seed", range(20))
def test_boxes_lie_in_their_image_and_labels_in_range(seed):
    batch = seeded_batch(SIZES, seed, CLASSES)
    assert batch.image_sizes == SIZES
    for (h, w), boxes, labels in zip(SIZES, batch.gt_bboxes, batch.gt_labels):
        assert boxes.dtype == torch.float32 and labels.dtype == torch.int64
        assert 4 <= len(boxes) == len(labels) <= 7
        x1, y1, x2, y2 = boxes.unbind(1)
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= w).all() and (y2 <= h).all()
        assert (x2 - x1 >= 1.99).all() and (y2 - y1 >= 1.99).all()
        assert (labels >= 0).all() and (labels < CLASSES).all()


@pytest.mark.parametrize("seed", range(20))
def test_every_image_has_objects_of_each_kind(seed):
    batch = seeded_batch(SIZES, seed, CLASSES)
    for (h, w), boxes, labels in zip(SIZES, batch.gt_bboxes, batch.gt_labels):
        x1, y1, x2, y2 = boxes.unbind(1)
        assert ((x2 - x1 <= 6.01) & (y2 - y1 <= 6.01)).any()
        assert ((x1 == 0) & (y1 == 0) | (x2 == w) & (y2 == h)).any()
        assert len(set(labels.tolist())) > 1
    twins = [
        (one, two)
        for boxes, labels in zip(batch.gt_bboxes, batch.gt_labels)
        for one, two, first, second in zip(labels, labels[1:], boxes, boxes[1:])
        if torch.equal(first, second)
    ]
    assert twins and all(one != two for one, two in twins)


def test_counts_labels_and_boxes_vary():
    batches = [seeded_batch(SIZES, seed, CLASSES) for seed in range(20)]
    assert {len(labels) for batch in batches for labels in batch.gt_labels} == {4, 5, 6, 7}
    assert {int(label) for batch in batches for labels in batch.gt_labels for label in labels} == set(range(CLASSES))
    # wide images get boxes right of their height, so that no one can swap x and y unseen
    assert any((batch.gt_bboxes[1][:, 2] > SIZES[1][0]).any() for batch in batches)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [SIZES, ((64, 64),) * 40])
def test_every_image_has_scale_factors_of_its_own(seed, sizes):
    factors = [factor for pair in seeded_batch(sizes, seed, CLASSES, (1,) * len(sizes)).scale_factors for factor in pair]
    assert len(set(factors)) == len(factors) == 2 * len(sizes)
    assert all(0.5 < factor < 1.5 and factor != 1 for factor in factors)


def test_an_image_is_padded_by_itself_to_less_than_the_batch_where_there_is_room():
    batch = seeded_batch(((93, 115), (131, 121), (77, 157), (96, 128)), 0, CLASSES)
    assert batch.pad_shapes == ((96, 128), (131, 128), (96, 157), (128, 157)) and batch.images.shape[2:] == (131, 157)


DEFAULTS = sorted({early.DEFAULT_SIZES, *(variant.sizes for variant in registry.get("ddq_detr").variants)})


@pytest.mark.parametrize(
    "sizes", [*DEFAULTS, ((480, 640), (384, 512)), ((640, 640),), ((48, 640),), ((32, 32), (48, 32))]
)
def test_no_two_batches_of_a_run_have_a_size_in_common(sizes):
    batches = [varied(sizes, number) for number in range(9)]
    assert batches[0] == sizes
    padded = [tuple(map(max, zip(*batch))) for batch in batches]
    assert len(set(padded)) == len(padded)
    for images in zip(*batches):
        assert len(set(images)) == len(batches) and all(32 <= side <= 8192 for image in images for side in image)


@pytest.mark.parametrize("sizes", [*DEFAULTS, ((640, 640),), ((800, 1333),), ((120, 160),)])
def test_a_run_has_other_numbers_of_tokens_in_training_and_never_more_pixels(sizes):
    grid = [[-(-side // 8) for side in map(max, zip(*batch))] for batch in (varied(sizes, n) for n in range(30))]
    assert all(one != two for one, two in zip(grid, grid[1:])) and grid[0] not in grid[1:]
    pixels = [sum(h * w for h, w in varied(sizes, number)) for number in range(30)]
    assert max(pixels) == pixels[0] and min(pixels) > 0.65 * pixels[0]


def test_what_is_asked_for_above_10000_tokens_stays_there_in_training():
    for number in range(30):
        ((h, w),) = varied(((640, 800),), number)
        assert sum(-(-h // stride) * -(-w // stride) for stride in (8, 16, 32, 64)) > 10_000


@pytest.mark.parametrize("sizes", DEFAULTS)
def test_no_image_of_the_default_batch_is_the_largest_and_the_first_is_never(sizes):
    heights, widths = zip(*sizes)
    assert len(sizes) == 3 and heights[0] < max(heights) and widths[0] < max(widths)
    assert heights.index(max(heights)) != widths.index(max(widths)) and sizes[0] not in (min(sizes), max(sizes))


@pytest.mark.parametrize("seed", range(8))
def test_first_image_holds_fewer_objects_than_the_second(seed):
    first, second, third = (len(boxes) for boxes in seeded_batch(SIZES, seed, CLASSES).gt_bboxes)
    assert first in (4, 5) and first + 2 <= second <= 7 and 4 <= third <= 7
    (alone,) = seeded_batch(SIZES[:1], seed, CLASSES).gt_bboxes
    assert 4 <= len(alone) <= 7


def test_number_of_objects_can_be_given_per_image():
    batch = seeded_batch(SIZES, 0, CLASSES, objects=(0, 9, 1))
    assert [tuple(boxes.shape) for boxes in batch.gt_bboxes] == [(0, 4), (9, 4), (1, 4)]
    assert [len(labels) for labels in batch.gt_labels] == [0, 9, 1]


def test_numbers_of_objects_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ValueError, match="Objects are given for 1 image; expected 3"):
        seeded_batch(SIZES, 0, CLASSES, objects=(4,))


def test_padding_is_zero_and_the_image_is_not():
    batch = seeded_batch(SIZES, 0, CLASSES)
    assert batch.images.shape == (3, 3, 64, 80) and batch.images.dtype == torch.float32
    for image, (h, w) in zip(batch.images, SIZES):
        assert not image[:, h:].any() and not image[:, :, w:].any()
        assert (image[:, :h, :w] != 0).all()
        assert abs(image[:, :h, :w].mean()) < 0.5 and 0.5 < image[:, :h, :w].std() < 2.0


def test_images_and_channels_of_a_batch_differ():
    images = seeded_batch(((64, 64), (64, 64)), 0, CLASSES).images
    planes = [plane.numpy().tobytes() for image in images for plane in image]
    assert len(set(planes)) == len(planes) == 6


def test_weights_are_the_same_bits_for_the_same_seed_whatever_else_was_drawn(tiny, weights):
    torch.manual_seed(123)
    torch.rand(11)
    assert bits(seeded_weights(tiny, 0)) == bits(weights)


def test_weights_of_another_seed_differ_in_every_tensor_but_counters(tiny, weights):
    one, two = bits(weights), bits(seeded_weights(tiny, 1))
    same = {name.rpartition(".")[2] for name in one if one[name] == two[name]}
    assert same == {"num_batches_tracked"}


def test_weights_do_not_depend_on_the_order_or_presence_of_other_keys(tiny, weights):
    turned = Layout("turned", dict(sorted(tiny.tensors.items(), reverse=True)))
    some = Layout("some", {key: spec for key, spec in tiny.tensors.items() if "reg_branches" in key})
    assert bits(seeded_weights(turned, 0)) == bits(weights)
    expected = {name: value for name, value in bits(weights).items() if name in some.tensors}
    assert bits(seeded_weights(some, 0)) == expected != {}


def test_gains_of_a_family_go_before_those_of_all(tiny, weights):
    damped = seeded_weights(tiny, 0, Seeding(gains={"*in_proj_weight": 1.0}))
    changed = [name for name in weights if not torch.equal(weights[name], damped[name])]
    assert changed == [name for name in weights if name.endswith("in_proj_weight")] != []
    assert all(damped[name].std() < 0.5 * weights[name].std() for name in changed)


def test_weights_have_the_dtypes_and_shapes_of_the_layout(tiny, weights):
    assert {name: layout.spec_of(value) for name, value in weights.items()} == dict(tiny.tensors)
    assert all(value.isfinite().all() for value in weights.values())


def test_no_two_tensors_of_one_shape_are_alike(weights):
    floats = [value for value in weights.values() if value.is_floating_point()]
    assert len({(tuple(v.shape), v.numpy().tobytes()) for v in floats}) == len(floats) > 200


def test_nothing_is_zero_or_constant(weights):
    for name, value in weights.items():
        if value.is_floating_point():
            assert (value != 0).any() and (value.numel() == 1 or value.std() > 0.003), name


def test_regression_layers_move_boxes(weights):
    last = {name: value for name, value in weights.items() if "reg_branches" in name and len(value) == 4}
    assert {name.rpartition(".")[2] for name in last} == {"weight", "bias"} and len(last) >= 8
    for name, value in last.items():
        assert (value != 0).all(), name


def test_norms_are_positive_and_no_identities(weights):
    scales = {n: v for n, v in weights.items() if n.endswith("running_var") or (v.ndim == 1 and n.endswith(".weight"))}
    assert any(name.endswith("running_var") for name in scales) and any("norm" in name for name in scales)
    for name, value in scales.items():
        assert (value > 0.5).all() and (value < 1.5).all() and value.std() > 0.1, name
    means = [value for name, value in weights.items() if name.endswith("running_mean")]
    assert means and all((value != 0).all() for value in means)


def test_wide_layers_keep_the_scale_of_what_they_are_given():
    made = seeded_weights(Layout("wide", {"neck.conv.weight": TensorSpec("float32", (64, 128, 3, 3))}), 0)
    # 128 * 3 * 3 terms of variance 1 / 1152 add up to a variance of 1
    assert made["neck.conv.weight"].std().item() == pytest.approx(1152**-0.5, rel=0.02)


def test_counters_are_zero(weights):
    counters = [value for name, value in weights.items() if name.endswith("num_batches_tracked")]
    assert counters and all(value.dtype == torch.int64 and value.item() == 0 for value in counters)


def test_batch_is_padded_to_a_multiple_and_what_else_it_holds_is_the_same():
    plain, padded = (seeded_batch(SIZES, 0, CLASSES, divisor=divisor) for divisor in (1, 32))
    assert plain.images.shape[-2:] == (64, 80) and padded.images.shape[-2:] == (64, 96)
    assert torch.equal(padded.images[..., :80], plain.images) and not padded.images[..., 80:].any()
    assert padded.image_sizes == plain.image_sizes
    assert all(map(torch.equal, padded.gt_bboxes, plain.gt_bboxes))


def test_masks_are_ellipses_inside_of_their_boxes():
    batch = seeded_batch(SIZES, 0, CLASSES)
    for masks, boxes, (h, w) in zip(masks_of(batch), batch.gt_bboxes, SIZES):
        assert masks.dtype == torch.uint8 and masks.shape == (len(boxes), h, w)
        for mask, (left, top, right, bottom) in zip(masks, boxes.tolist()):
            rows, columns = mask.nonzero().unbind(1)
            assert left <= columns.min() + 0.5 <= columns.max() + 0.5 <= right
            assert top <= rows.min() + 0.5 <= rows.max() + 0.5 <= bottom
            area = math.pi / 4 * (right - left) * (bottom - top)
            assert abs(int(mask.sum()) - area) < 2 * (right - left + bottom - top)
