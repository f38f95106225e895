"""Fast numerics beside the legacy ones: the same weights, functions, decisions and gradients."""

import copy

import pytest
import torch

from ddq_port.models.ddq_detr.fast import distinct
from ddq_port.ops import nms, sampling
from legacy_adapters import mmdet3
from legacy_adapters.inputs import Batch
from legacy_adapters.numerics.precision import computing_in
from parity.sides.prepare import seeded_batch

FAST = "fast"


def terms_of(losses):
    """Return each loss term as one tensor."""
    return {name: torch.stack(list(x)) if isinstance(x, list | tuple) else x for name, x in losses.items()}


def ran(model, batch):
    """Return detections, loss terms and gradients in float64, where only another function makes a difference."""
    with computing_in("float64"):
        wide = Batch.from_tensors(batch.to_tensors(), "cpu", torch.float64)
        model.double().eval()
        with torch.no_grad():
            found = mmdet3.predict(model, wide)
        torch.manual_seed(0)
        model.train()
        terms, total = mmdet3.losses(model, wide)
        total.backward()
        state = torch.get_rng_state()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, terms_of(terms), gradients, state


@pytest.mark.parametrize("rule", ["legacy", "exact"])
def test_fast_numerics_are_the_same_functions(build, rule):
    batch = seeded_batch([(128, 160), (96, 128), (64, 64)], seed=0, num_classes=3, objects=(5, 0, 12))
    same(*(ran(build(distinct_mask=rule, numerics=numerics), batch) for numerics in ("legacy", FAST)))


@pytest.mark.parametrize("objects", [(0,), (60,)], ids=["no object", "more objects than dense queries"])
def test_few_tokens_and_odd_numbers_of_objects(build, objects):
    image = seeded_batch([(32, 32)], seed=0, num_classes=3, objects=objects)
    same(*(ran(build(numerics=numerics), image) for numerics in ("legacy", FAST)))


def same(one, two):
    """Compare what :func:`ran` returned."""
    for legacy, fast in zip(one[0], two[0], strict=True):
        assert torch.equal(legacy["labels"], fast["labels"])
        for name in ("bboxes", "scores"):
            torch.testing.assert_close(fast[name], legacy[name], rtol=1e-9, atol=1e-9)
    assert list(one[1]) == list(two[1])  # losses, in the order they are logged in
    for name, value in one[1].items():
        # without any object a legacy term may have no axis where it has one otherwise
        values = two[1][name].flatten(), value.flatten()
        torch.testing.assert_close(*values, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
    assert one[2].keys() == two[2].keys()
    for name, value in one[2].items():
        room = dict(rtol=1e-7, atol=1e-9 * float(value.abs().max()))
        torch.testing.assert_close(two[2][name], value, **room, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(one[3], two[3])  # as many random numbers were drawn


def test_losses_of_the_same_predictions_agree_in_single_precision(build, batch):
    legacy, fast = (build(numerics=numerics).train() for numerics in ("legacy", FAST))
    samples = mmdet3.data_samples(batch, True)
    torch.manual_seed(0)
    given, objects = fast._prepare(batch.images, samples)
    output = fast._decode(given, exact=True)
    two = fast.bbox_head.loss(
        *output, given.layout, given.num_groups, objects=objects, **given.encoder_outputs
    )
    noise = dict(num_denoising_queries=given.layout.num_denoising, num_denoising_groups=given.num_groups)
    one = legacy.bbox_head.loss(
        output.hidden_states, list(output.references), output.active_masks, given.layout,
        batch_data_samples=samples, dn_meta=noise, **given.encoder_outputs,
    )  # fmt: skip
    one, two = terms_of(one), terms_of(two)
    assert list(one) == list(two)
    for name in one:
        told = dict(msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(two[name], one[name].view_as(two[name]), rtol=1e-6, atol=1e-9, **told)


def test_what_is_logged_is_on_the_host_and_has_the_same_bits(build, batch, losses):
    model = build(numerics=FAST)
    terms, total = losses(model, batch)
    logged, expected = model.parse_losses(terms)[1], super(type(model), model).parse_losses(terms)[1]
    assert list(logged) == list(expected) and all(torch.equal(logged[name], expected[name]) for name in logged)
    assert not any(value.requires_grad for value in logged.values())


def test_the_same_seed_makes_the_same_model(config):
    from mmengine.registry import DefaultScope

    from ddq_port.registry import MODELS

    states = []
    for numerics in ("legacy", FAST):
        own = copy.deepcopy(config)
        own.merge_from_dict(dict(model=dict(numerics=numerics)))
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(own.model)
        model.init_weights()
        states.append(model.state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_step_adds_nothing_and_reaches_every_parameter(build, batch, losses):
    model = build(numerics=FAST)
    before = list(model.state_dict())
    losses(model, batch)[1].backward()
    assert list(model.state_dict()) == before
    assert {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None} == set()


def test_autocast_trains_and_infers(build, batch):
    model = build(numerics=FAST).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, total = mmdet3.losses(model, batch)
    total.backward()
    assert torch.isfinite(total)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = mmdet3.predict(model.eval(), batch)
    assert {image["bboxes"].dtype for image in found} == {torch.float32}


@pytest.mark.parametrize(
    "overrides",
    [
        dict(numerics="quick"),
        dict(numerics=FAST, bbox_head=dict(type="mmdet.DINOHead")),
        dict(numerics=FAST, bbox_head=dict(loss_iou=dict(_delete_=True, type="DIoULoss"))),
        dict(numerics=FAST, encoder=dict(layer_cfg=dict(ffn_cfg=dict(ffn_drop=0.1)))),
        dict(numerics=FAST, train_cfg=dict(assigner=dict(match_costs=[dict(type="ClassificationCost")]))),
    ],
    ids=["name", "head", "loss", "dropout", "cost"],
)
def test_what_has_no_fast_form_is_refused_in_one_line(build, overrides):
    with pytest.raises(ValueError, match="expected") as caught:
        build(**overrides)
    assert "\n" not in str(caught.value)


def boxes_in_a_row(step):
    """Return eight boxes [1, 8, 4] xyxy, each moved by ``step`` of its width: neighbours overlap."""
    left = torch.arange(8.0) * step
    return torch.stack([left, torch.zeros(8), left + 1, torch.ones(8)], -1)[None]


def test_suppression_is_greedy_and_says_whether_it_came_to_an_end():
    boxes, everyone, edge = boxes_in_a_row(0.2), torch.ones(1, 8, dtype=torch.bool), torch.tensor([2.4])
    kept = distinct.suppress(boxes, everyone, 0.5, None, edge)
    assert kept.mask[0].nonzero().view(-1).tolist() == nms.greedy_keep(boxes[0], torch.arange(8), 0.5).tolist()
    # a chain of eight: what the last box becomes depends on all before it
    assert not bool(distinct.suppress(boxes, everyone, 0.5, 2, edge).settled)
    settled = distinct.suppress(boxes, everyone, 0.5, 10, edge)
    assert bool(settled.settled) and torch.equal(settled.mask, kept.mask)


def test_boxes_that_do_not_take_part_suppress_none():
    some = torch.tensor([[False] + [True] * 7])
    kept = distinct.suppress(boxes_in_a_row(0.2), some, 0.5, None, torch.tensor([2.4]))
    assert not kept.mask[0, 0] and kept.mask[0, 1]


def test_selection_looks_further_until_it_has_enough():
    # boxes 0 to 89 are one box, 90 to 99 lie apart
    coords = torch.zeros(1, 100, 4)
    coords[0, 90:, 0] = torch.linspace(-4, 4, 10)
    coords[..., 2:] = -4
    scores = torch.linspace(0.9, 0.1, 100)[None]
    seen = []

    def coords_of(inds):
        seen.append(inds.shape[1])
        return coords.gather(1, inds[..., None].expand(-1, -1, 4))

    chosen = distinct.select_distinct(scores, coords_of, torch.tensor(False), 0.8, 8)
    assert seen[0] < 90 and seen[-1] == 100
    assert chosen.tokens[0].tolist() == [0, *range(90, 97)] and chosen.valid.all()


def test_not_a_number_is_refused():
    coords = torch.full((1, 4, 4), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        distinct.select_distinct(torch.ones(1, 4), lambda inds: coords, torch.tensor(False), 0.8, 2)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("channels", [pytest.param(32, id="row_by_row"), pytest.param(5, id="narrow")])
def test_sums_on_a_cpu_are_those_of_grid_sample(channels, scaled):
    torch.manual_seed(0)
    shapes, heads, points = ((5, 7), (3, 1), (1, 1)), 2, 3
    tokens = sum(h * w for h, w in shapes)
    value = torch.randn(2, tokens, heads * channels, dtype=torch.float64, requires_grad=True)
    size = (2, heads * len(shapes) * points, 11)
    x, y, weights = (torch.randn(size, dtype=torch.float64).mul_(3).requires_grad_() for _ in range(3))
    where = [torch.rand(2, 11, len(shapes), dtype=torch.float64) * 9 - 1 for _ in range(4)]
    centres = sampling.Centres(*where[:2], *(where[2:] if scaled else (None, None)))
    results = [
        sampling.sampled_sum(value, shapes, centres, sampling.Samples(x, y, weights, heads)),
        sampling._by_grid_sample(
            value, x, y, weights, (centres.x, centres.y, centres.width, centres.height), shapes, heads
        ),
    ]
    torch.testing.assert_close(*results)
    grad = torch.randn_like(results[0])
    one, two = (torch.autograd.grad(result, (value, x, y, weights), grad) for result in results)
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second)
