"""Training on what data sets hold besides good images, in every precision, with and without gradient checkpointing."""

import copy
import dataclasses

import ddq_port.models  # noqa: F401  # isort: skip

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from ddq_port import configs
from ddq_port.amp import AmpOptimWrapper
from ddq_port.registry import MODELS, OPTIM_WRAPPERS
from legacy_adapters import mmdet3
from parity.sides.prepare import seeded_batch
from tests.models import weights_of


def built(variant="tiny_4scale", **overrides):
    config = copy.deepcopy(configs.load(configs.VARIANTS[variant]))
    config.merge_from_dict(dict(model=overrides))
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    model.load_state_dict(weights_of(variant, 0), strict=True)
    return model.train()


def wrapper(model, dtype):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    if dtype == "float32":
        return OptimWrapper(optimizer)
    return AmpOptimWrapper(optimizer=optimizer, dtype=dtype, loss_scale=1.0)


def batch(sizes, objects, num_classes):
    made = seeded_batch(sizes, seed=0, num_classes=num_classes)
    pairs = list(zip(objects, made.gt_bboxes, made.gt_labels))
    return dataclasses.replace(
        made,
        gt_bboxes=[b if some else b[:0] for some, b, _ in pairs],
        gt_labels=[x if some else x[:0] for some, _, x in pairs],
    )


# oneDNN's bfloat16 convolution over a single pixel gives NaN gradients now and then (torch 2.13, CPU), hence 64 pixels
BATCHES = {
    "all with objects": ([(64, 96), (96, 64)], (True, True)),
    "one without": ([(64, 96), (96, 64)], (True, False)),
    "all without": ([(64, 96), (96, 64)], (False, False)),
    "few tokens": ([(32, 64)], (True,)),
    "few tokens, no objects": ([(32, 64)], (False,)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("variant", "rule"), [("tiny_4scale", "legacy"), ("tiny_1class", "exact")])
@pytest.mark.parametrize("kind", BATCHES)
def test_training_step_is_finite(kind, variant, rule, dtype):
    """Every trainable parameter has a gradient, too: ranks of a distributed training wait for each of them."""
    model = built(variant, distinct_mask=rule)
    data = batch(*BATCHES[kind], num_classes=model.bbox_head.num_classes)
    optimizer = wrapper(model, dtype)
    torch.manual_seed(0)
    with optimizer.optim_context(model):
        terms, total = mmdet3.losses(model, data)
    flat = [x for value in terms.values() for x in (value if isinstance(value, list) else [value])]
    assert all(torch.isfinite(x).all() and x.dtype == torch.float32 for x in flat)
    gradients = {}

    def step():
        gradients.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    optimizer.step = step
    optimizer.update_params(total)
    assert set(gradients) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(grad).all() for grad in gradients.values())
    assert any(grad.any() for grad in gradients.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_is_close_to_float32(dtype):
    """The same model in another precision, not another model: the loss of one class is that of single precision."""
    data = batch(*BATCHES["all with objects"], num_classes=3)
    found = []
    for precision in ("float32", dtype):
        model = built()
        optimizer = wrapper(model, precision)
        torch.manual_seed(0)
        with optimizer.optim_context(model):
            terms, _ = mmdet3.losses(model, data)
        found.append(float(terms["dn_loss_bbox"]))  # follows no decision that rounding may tip
    assert found[1] == pytest.approx(found[0], rel=0.05) and found[1] != found[0]


def test_detections_are_fewer_than_asked_for_where_there_are_fewer_pairs():
    model = built("tiny_1class", distinct_mask="exact", test_cfg=dict(max_per_img=300)).eval()
    with torch.no_grad():
        (found,) = mmdet3.predict(model, batch([(32, 32)], (True,), num_classes=1))
    assert 0 < len(found["scores"]) <= model.num_queries
    assert torch.isfinite(found["bboxes"]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [1, 2])
def test_checkpointed_encoder_has_the_same_gradients_bit_for_bit(layers, dtype):
    dropout = dict(layer_cfg=dict(self_attn_cfg=dict(dropout=0.1), ffn_cfg=dict(ffn_drop=0.1)))
    data = batch(*BATCHES["all with objects"], num_classes=3)
    found = []
    for count in (0, layers):
        model = built(encoder=dict(num_cp=count, **dropout))
        calls = []
        for layer in model.encoder.layers:
            layer.ffn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        optimizer = wrapper(model, dtype)
        torch.manual_seed(0)
        with optimizer.optim_context(model):
            _, total = mmdet3.losses(model, data)
        total.backward()
        assert len(calls) == 2 + count  # the checkpointed ones twice
        found.append((total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (plain_total, plain), (total, checkpointed) = found
    assert torch.equal(total, plain_total) and plain.keys() == checkpointed.keys()
    assert [name for name in plain if not torch.equal(plain[name], checkpointed[name])] == []


def test_checkpointing_changes_no_key_and_nothing_at_inference():
    plain, checkpointed = built().eval(), built(encoder=dict(num_cp=2)).eval()
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    data = batch(*BATCHES["all with objects"], num_classes=3)
    with torch.no_grad():
        for one, two in zip(mmdet3.predict(plain, data), mmdet3.predict(checkpointed, data)):
            assert all(torch.equal(one[key], two[key]) for key in one)


def test_more_checkpointed_layers_than_layers_are_refused():
    with pytest.raises(ValueError, match="num_cp is 3; expected at most the number of layers, 2"):
        built(encoder=dict(num_cp=3))


@pytest.mark.parametrize(
    ("settings", "expected"), [(dict(dtype="float64"), "float16, bfloat16"), (dict(loss_scale="fixed"), "'dynamic'")]
)
def test_mixed_precision_that_makes_no_sense_is_refused(settings, expected):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=f"expected .*{expected}"):
        OPTIM_WRAPPERS.build(dict(type="ddq_port.AmpOptimWrapper", optimizer=optimizer, **settings))


def test_step_with_an_infinite_gradient_is_left_out_and_the_scale_halved():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = AmpOptimWrapper(optimizer=torch.optim.SGD([weight], lr=0.1), loss_scale=dict(init_scale=8.0))
    optimizer.update_params((weight * torch.inf).sum())
    assert weight.item() == 1.0 and optimizer.loss_scaler.get_scale() == 4.0
    optimizer.update_params(weight.sum())
    assert weight.item() == pytest.approx(0.9)
