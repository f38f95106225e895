"""Seeded inputs and weights: the same bits every time, and nothing in them that would hide an error."""

import pytest
import torch

from converters import layout
from converters.layout import Layout, TensorSpec
from parity.prepare import seeded_batch, seeded_weights

SIZES = ((48, 64), (40, 80), (64, 32))
CLASSES = 5


def bits(tensors):
    return {name: (tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def tiny():
    return layout.load("tiny_4scale", side="legacy")


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
    assert torch.equal(one.pop("image_sizes"), two.pop("image_sizes"))
    one, two = bits(one), bits(two)
    assert [name for name in one if one[name] == two.get(name)] == []


@pytest.mark.parametrize("seed", range(20))
def test_boxes_lie_in_their_image_and_labels_in_range(seed):
    batch = seeded_batch(SIZES, seed, CLASSES)
    assert batch.image_sizes == SIZES
    for (h, w), boxes, labels in zip(SIZES, batch.gt_bboxes, batch.gt_labels):
        assert boxes.dtype == torch.float32 and labels.dtype == torch.int64
        assert 2 <= len(boxes) == len(labels) <= 7
        x1, y1, x2, y2 = boxes.unbind(1)
        assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= w).all() and (y2 <= h).all()
        assert (x2 - x1 >= w / 8 - 1e-3).all() and (y2 - y1 >= h / 8 - 1e-3).all()
        assert (labels >= 0).all() and (labels < CLASSES).all()


def test_counts_labels_and_boxes_vary():
    batches = [seeded_batch(SIZES, seed, CLASSES) for seed in range(20)]
    assert {len(labels) for batch in batches for labels in batch.gt_labels} == {2, 3, 4, 5, 6, 7}
    assert {int(label) for batch in batches for labels in batch.gt_labels for label in labels} == set(range(CLASSES))
    # wide images get boxes right of their height, so that no one can swap x and y unseen
    assert any((batch.gt_bboxes[1][:, 2] > SIZES[1][0]).any() for batch in batches)


def test_number_of_objects_can_be_given_per_image():
    batch = seeded_batch(SIZES, 0, CLASSES, objects=(0, 9, 1))
    assert [tuple(boxes.shape) for boxes in batch.gt_bboxes] == [(0, 4), (9, 4), (1, 4)]
    assert [len(labels) for labels in batch.gt_labels] == [0, 9, 1]


def test_numbers_of_objects_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ValueError, match="Objects are given for 1 images; expected 3"):
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


def test_weights_have_the_dtypes_and_shapes_of_the_layout(tiny, weights):
    assert {name: layout.spec_of(value) for name, value in weights.items()} == dict(tiny.tensors)
    assert all(value.isfinite().all() for value in weights.values())


def test_no_two_tensors_of_one_shape_are_alike(weights):
    floats = [value for value in weights.values() if value.is_floating_point()]
    assert len({(tuple(v.shape), v.numpy().tobytes()) for v in floats}) == len(floats) > 200


def test_nothing_is_zero_or_constant(weights):
    for name, value in weights.items():
        if value.is_floating_point():
            assert (value != 0).any() and (value.numel() == 1 or value.std() > 0.01), name


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
