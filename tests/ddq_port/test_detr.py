"""DETR and Deformable DETR compute the same in both layouts, and at one image bit for bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.structures import InstanceData

from converters.rules.ports import port
from ddq_port.models.detr.matching import NORMALIZED, NormalizedBBoxL1Cost
from legacy_adapters import mmdet3, registry
from legacy_adapters.family import NEW
from parity.sides.prepare import seeded_batch, seeded_weights

CONFIGS = Path(registry.get("mmdet2").folder, "configs", "new")
VARIANTS = ("tiny_detr", "tiny_deformable", "tiny_deformable_refine", "tiny_deformable_two_stage")


@cache
def model(name: str) -> torch.nn.Module:
    """Return a seeded model of a config; its weights are those of the same model in the other layout."""
    built = mmdet3.build_model(str(CONFIGS / f"{name}.py"))
    of = port("mmdet2", name.removesuffix("_sequence_first"))
    weights = seeded_weights(of.layout(NEW), 0, of.family.seeding)
    built.load_state_dict({key: tensor for key, tensor in weights.items() if tensor.is_floating_point()}, strict=False)
    for module in built.modules():
        if isinstance(module, torch.nn.MultiheadAttention | torch.nn.Dropout):
            setattr(module, "p" if isinstance(module, torch.nn.Dropout) else "dropout", 0.0)
    return built


def computed(name: str, *sizes: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Return loss terms, gradients and detections of one batch."""
    detector, batch = model(name), seeded_batch(sizes, 0, 7, (4,) * len(sizes))
    detector.zero_grad()
    detector.train()
    terms, total = mmdet3.losses(detector, batch)
    total.backward()
    found = {name: term.detach() for name, term in terms.items()} | {"total": total.detach()}
    found |= {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}
    with torch.no_grad():
        for number, image in enumerate(mmdet3.predict(detector.eval(), batch)):
            found |= {f"{number}.{key}": value for key, value in image.items()}
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_layouts_differ_by_rounding_only(name):
    one, other = (computed(variant, (61, 77), (83, 71)) for variant in (name, f"{name}_sequence_first"))
    assert one.keys() == other.keys() and len(one) > 100
    for key, value in one.items():
        size = value.abs().max().double()
        assert (value.double() - other[key].double()).abs().max() <= 1e-3 * size + 1e-6, key


def test_layouts_are_bit_identical_at_one_image():
    one, other = (computed(variant, (61, 77)) for variant in ("tiny_deformable", "tiny_deformable_sequence_first"))
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("name", ["tiny_detr", "tiny_deformable"])
def test_unknown_layout_is_refused(name):
    config = mmdet3.load_config(str(CONFIGS / f"{name}_sequence_first.py"))
    config.model.layout = "channels_last"
    with pytest.raises(ValueError, match=r"layout is 'channels_last'; expected one of batch_first, sequence_first\.$"):
        mmdet3.build_from(config)


def test_background_has_its_weight_in_the_head_of_this_package():
    own, mmdets = (model(name).bbox_head for name in ("tiny_detr_sequence_first", "tiny_detr"))
    assert own.bg_cls_weight == mmdets.bg_cls_weight == 0.1
    assert torch.equal(torch.tensor(own.loss_cls.class_weight), mmdets.loss_cls.class_weight)


def test_cost_is_the_distance_of_normalised_boxes():
    predicted = torch.tensor([[0.5, 0.5, 0.25, 0.5], [0.25, 0.5, 0.5, 1.0]])
    objects = InstanceData(bboxes=torch.tensor([[30.0, 10.0, 50.0, 30.0]]))  # cxcywh 0.5, 0.5, 0.25, 0.5
    cost = NormalizedBBoxL1Cost(weight=5.0)(None, objects, {"img_shape": (40, 80), NORMALIZED: predicted})
    assert cost.tolist() == [[0.0], [5.0]]
