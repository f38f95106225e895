"""Distinct queries against a brute-force reference that shares no code with the model.

The reference is numpy and plain loops, in the float32 arithmetic that decides: mmcv's shift of all boxes before the
NMS, its order of tied scores and its second sort from 10,000 boxes on. Losses and detections are recomputed in float64.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from ddq_port.models.ddq_detr.queries import (
    MASK_RULES,
    DistinctSelection,
    attention_block,
    select_distinct,
    still_distinct,
)
from legacy_adapters import mmdet3
from parity.sides.prepare import seeded_batch

ONE, HALF = np.float32(1), np.float32(0.5)


# The reference


def ranks(scores):
    """Return the indices of ``scores`` [n], best first; tied ones as torch's unstable sort has them, like mmcv."""
    order = torch.from_numpy(scores).sort(0, descending=True)[1].numpy()
    assert sorted(order) == list(range(len(scores))) and (np.diff(scores[order]) <= 0).all()
    return order


def greedy(boxes, scores, threshold, shift=True):
    """Return the indices of ``boxes`` [n, 4] cxcywh that class-agnostic greedy NMS keeps, best first."""
    if len(boxes) == 0:
        return []
    cx, cy, w, h = boxes.T
    corners = np.stack([cx - HALF * w, cy - HALF * h, cx + HALF * w, cy + HALF * h])  # [4, n]
    if shift:  # to the place of class 1: no class is told from another, but every overlap is rounded differently
        corners = corners + (corners.max() + ONE)
    x1, y1, x2, y2 = corners
    area = (x2 - x1) * (y2 - y1)
    order, gone, kept = ranks(scores), np.zeros(len(boxes), bool), []
    for place, i in enumerate(order):
        if gone[i]:
            continue
        kept.append(i)
        rest = order[place + 1 :]
        width = np.maximum(np.float32(0), np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]))
        height = np.maximum(np.float32(0), np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]))
        inter = width * height
        with np.errstate(invalid="ignore"):  # 0 / 0 between boxes without area: not above any threshold
            gone[rest] |= inter / (area[i] + area[rest] - inter) > np.float32(threshold)
    if len(boxes) >= 10_000:
        kept = np.sort(kept)
        kept = kept[ranks(scores[kept])]
    return list(kept)


def after_layer(boxes, scores, active, threshold, rule):
    """Apply one layer's selection to one image.

    Returns:
        survivors [n], the attention block of the next layer [n, n] (True = not seen), the next layer's active queries.
    """
    n = len(boxes)
    candidates = [i for i in range(n) if active[i]]
    survivors = np.zeros(n, bool)
    for place in greedy(boxes[candidates], scores[candidates], threshold):
        survivors[candidates[place]] = True
    block = np.ones((n, n), bool)
    for i in range(n):
        for j in range(n):
            if survivors[i] or survivors[j]:
                block[i, j] = False
    # the legacy code stores the block alone and reads from its first row who takes part in the next layer
    return survivors, block, survivors if rule == "exact" else ~block[0]


def all_layers(layers, threshold, rule):
    """Follow one image through ``layers`` of (boxes, scores); return active queries and block *before* each layer."""
    n = len(layers[0][0])
    actives, blocks = [np.ones(n, bool)], [np.zeros((n, n), bool)]
    for boxes, scores in layers[:-1]:
        _, block, active = after_layer(boxes, scores, actives[-1], threshold, rule)
        actives.append(active)
        blocks.append(block)
    return actives, blocks


# Random cases


def spread(random, n, threshold):
    return np.concatenate([random.random((n, 2)), random.uniform(0.05, 0.6, (n, 2))], axis=1)


def clustered(random, n, threshold):
    centres = spread(random, 1 + n // 6, threshold)[random.integers(0, 1 + n // 6, n)]
    return np.abs(centres + random.normal(0, 0.02, (n, 4)))


def grid(random, n, threshold):
    """Overlaps are fractions of small whole numbers, often exactly the threshold."""
    return np.concatenate([random.integers(6, 10, (n, 2)) / 16, random.integers(1, 9, (n, 2)) / 8], axis=1)


def repeated(random, n, threshold):
    return spread(random, 1 + n // 4, threshold)[random.integers(0, 1 + n // 4, n)]


def borderline(random, n, threshold):
    """Pairs that overlap by the threshold, but for a few units in the last place."""
    boxes = spread(random, n, threshold)
    boxes[1::2] = boxes[: 2 * (n // 2) : 2]
    boxes[1::2, 2] *= np.float32(threshold) * (1 + random.integers(-4, 5, n // 2) * 2.0**-23)
    return boxes


KINDS = (spread, clustered, grid, repeated, borderline)


@dataclass(frozen=True)
class Case:
    boxes: np.ndarray  # [n, 4] cxcywh
    scores: np.ndarray  # [n]
    candidates: np.ndarray  # [n] bool
    threshold: float


def cases(kind, count=60):
    """Make cases of 1 to 200 queries: distinct, tied or equal scores; all, some or no candidates."""
    for seed in range(count):
        random = np.random.default_rng((KINDS.index(kind), seed))
        n = 1 + seed if seed < 4 else int(random.integers(5, 201))
        threshold = float(random.choice([0.5, 0.6, 0.7, 0.75, 0.8, 0.9, random.uniform(0.5, 0.9)]))
        scores = random.random(n)
        scores = (scores, scores, np.round(scores * 8) / 8, np.full(n, 0.5))[seed % 4]
        candidates = random.random(n) < random.choice([0.0, 0.3, 0.8, 1.0, 1.0])
        boxes = kind(random, n, threshold)
        yield Case(boxes.astype(np.float32), scores.astype(np.float32), candidates, threshold)


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_one_layer(kind, rule):
    for number, case in enumerate(cases(kind)):
        survivors, block, active = after_layer(case.boxes, case.scores, case.candidates, case.threshold, rule)
        tensors = (torch.from_numpy(x) for x in (case.boxes, case.scores, case.candidates))
        found = still_distinct(*tensors, DistinctSelection(case.threshold, rule))
        assert [x.tolist() for x in found] == [survivors.tolist(), active.tolist()], f"case {number}"
        assert attention_block(found[0][None])[0].tolist() == block.tolist(), f"case {number}"


def test_attention_blocks_of_a_batch_are_those_of_its_images():
    survivors = np.random.default_rng(0).random((3, 20)) < 0.5
    for image, block in enumerate(attention_block(torch.from_numpy(survivors)).numpy()):
        assert all(block[i, j] == (not (survivors[image, i] or survivors[image, j])) for i, j in np.ndindex(20, 20))


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_sequences_of_layers(kind, rule):
    """Boxes and scores drift from layer to layer; what one layer drops must be out of the next one's NMS."""
    for number, case in enumerate(cases(kind, 24)):
        random = np.random.default_rng(number)
        layers = []
        for _ in range(6):
            moved = np.abs(case.boxes + random.normal(0, 0.02, case.boxes.shape))
            layers.append((moved.astype(np.float32), random.permutation(case.scores)))
        active, actives, blocks = torch.ones(len(case.boxes), dtype=torch.bool), [], []
        for boxes, scores in layers[:-1]:
            tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
            survivors, active = still_distinct(*tensors, active, DistinctSelection(case.threshold, rule))
            actives.append(active.numpy())
            blocks.append(attention_block(survivors[None])[0].numpy())
        expected = all_layers(layers, case.threshold, rule)
        np.testing.assert_array_equal(actives, expected[0][1:], f"case {number}")
        np.testing.assert_array_equal(blocks, expected[1][1:], f"case {number}")


def test_random_cases_reach_what_they_are_for():
    rounding, equality, first = 0, 0, set()
    for kind in KINDS:
        for case in cases(kind):
            arguments = case.boxes[case.candidates], case.scores[case.candidates]
            kept = greedy(*arguments, case.threshold)
            rounding += kept != greedy(*arguments, case.threshold, shift=False)
            equality += kept != greedy(*arguments, np.nextafter(np.float32(case.threshold), np.float32(0)))
            survivors, _, active = after_layer(case.boxes, case.scores, case.candidates, case.threshold, "legacy")
            first.add((bool(survivors[0]), bool((survivors != active).any())))
    assert rounding > 5 and equality > 5
    assert first == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("n", [9_999, 10_000, 10_050])
def test_selection_among_many_tokens(n):
    """From 10,000 boxes on mmcv sorts what it kept a second time, which moves tied boxes."""
    random = np.random.default_rng(n)
    boxes = np.concatenate([random.random((n, 2)), random.uniform(0.01, 0.1, (n, 2))], axis=1).astype(np.float32)
    scores = (np.round(random.random(n) * 500) / 500).astype(np.float32)
    expected = greedy(boxes, scores, 0.8)
    assert 900 < len(expected) < n
    for limit in (900, n):
        found = select_distinct(torch.from_numpy(boxes), torch.from_numpy(scores), 0.8, limit)
        assert found.tolist() == expected[:limit]


# The whole model

NUM_QUERIES, NUM_DENSE, NUM_LAYERS, NUM_HEADS, NUM_CLASSES, THRESHOLD = 60, 90, 3, 8, 3, 0.8


class Watch:
    """Hooks on a model; after a run, everything below is about its matching queries alone.

    Attributes:
        masks: per decoder layer, the attention mask it was given [bs, heads, queries, queries], all queries.
        start: place of the first matching query.
        layers: per layer and image, boxes [n, 4] and scores [n] after it, which decide who is distinct.
        active: active masks that the decoder returned [layers, bs, n].
        logits: of the head [layers, bs, n, classes].
        boxes: of the head [layers, bs, n, 4].
        all_logits: the head's output as it is, for gradients [layers, bs, queries, classes].
    """

    def __init__(self, model):
        self.model, self.masks, self._queries = model, [], []
        for layer in model.decoder.layers:
            layer.register_forward_hook(self._layer, with_kwargs=True)
        model.decoder.register_forward_hook(self._decoder)
        model.bbox_head.register_forward_hook(self._head)

    def _layer(self, module, args, kwargs, output):
        mask = kwargs["self_attn_mask"]
        self.masks.append(mask.view(-1, NUM_HEADS, *mask.shape[1:]).numpy())
        self._queries.append(output.detach())

    @torch.no_grad()
    def _decoder(self, module, args, output):
        total = self._queries[0].size(1)
        self.start = total - NUM_QUERIES - (NUM_DENSE if self.model.training else 0)
        own = slice(self.start, self.start + NUM_QUERIES)
        self.active = torch.stack(output.active_masks).numpy()
        self.layers = []
        for lid, query in enumerate(self._queries):
            scores = self.model.bbox_head.cls_branches[lid](query[:, own]).sigmoid().max(-1).values.numpy()
            boxes = output.references[lid + 1][:, own].numpy()
            self.layers.append(list(zip(boxes, scores)))

    def _head(self, module, args, output):
        self.all_logits = output[0]
        if output[0].requires_grad:
            output[0].retain_grad()
        own = slice(self.start, self.start + NUM_QUERIES)
        self.logits, self.boxes = (x[:, :, own].detach().double().numpy() for x in output)

    def expected(self, rule):
        """Return the reference's active masks [layers, bs, n] and blocks [layers, bs, n, n]."""
        images = [all_layers(image, THRESHOLD, rule) for image in zip(*self.layers)]
        actives, blocks = zip(*images)
        return np.stack(actives, axis=1), np.stack(blocks, axis=1)


@pytest.fixture
def watched(build, batch, losses):
    """Return a function that runs the tiny model and returns what was seen and what came out."""

    def run(mode, rule, seed, inputs=batch, **overrides):
        model = build(seed, distinct_mask=rule, **overrides)
        seen = Watch(model)
        if mode == "training":
            return seen, losses(model, inputs)[0]
        with torch.no_grad():
            return seen, mmdet3.predict(model.eval(), inputs)

    return run


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_every_layer_of_the_model(watched, mode, rule):
    dropped = 0
    for seed in range(4):
        seen, _ = watched(mode, rule, seed)
        actives, blocks = seen.expected(rule)
        np.testing.assert_array_equal(seen.active, actives)
        assert (seen.start > 0) == (mode == "training")
        own = slice(seen.start, seen.start + NUM_QUERIES)
        for mask, expected in zip(seen.masks, blocks, strict=True):
            assert (mask == mask[:, :1]).all()  # all heads alike
            np.testing.assert_array_equal(mask[:, 0, own, own], expected)
            mask[:, :, own, own] = False
            np.testing.assert_array_equal(mask, seen.masks[0])  # outside the block nothing changes
        assert not (actives[1:] & ~actives[:-1]).any()  # no way back for a dropped query
        dropped += sum(0 < image.sum() < NUM_QUERIES for layer in actives for image in layer)
    assert dropped > 2


@pytest.mark.parametrize("rule", MASK_RULES)
def test_detections_are_the_pairs_of_active_queries(watched, batch, rule):
    fewer = 0
    for seed in range(3):
        seen, results = watched("inference", rule, seed, test_cfg=dict(max_per_img=1000))
        active = seen.expected(rule)[0][-1]
        for image, found in enumerate(results):
            size, factors = batch.image_sizes[image], batch.scale_factors[image]
            rows = pairs(seen.logits[-1, image], seen.boxes[-1, image], active[image], size, factors)
            columns = found["scores"][:, None], found["labels"][:, None], found["bboxes"]
            mine = torch.cat([x.double() for x in columns], dim=1).numpy()
            assert len(mine) == len(rows) == NUM_CLASSES * active[image].sum()
            np.testing.assert_allclose(mine[:, 0], sorted(rows[:, 0], reverse=True), rtol=1e-5)
            # not by place: tied scores may come in any order
            apart = np.abs(mine[:, None] - rows).max(-1)  # [detections, rows]
            assert apart.min(0).max() < 1e-3 and apart.min(1).max() < 1e-3
            fewer += len(mine) < NUM_CLASSES * NUM_QUERIES
    assert fewer > 0


def pairs(logits, boxes, active, size, factors):
    """Return rows of (score, label, x1, y1, x2, y2) in pixels of the original image."""
    rows = []
    for query in np.flatnonzero(active):
        cx, cy, w, h = boxes[query]
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        limits, scale = (size[1], size[0]) * 2, factors * 2
        box = [min(max(x * limit, 0), limit) / s for x, limit, s in zip(box, limits, scale)]
        rows += [[sigmoid(logits[query, label]), label, *box] for label in range(NUM_CLASSES)]
    return np.array(rows)


CROWDED = seeded_batch([(128, 160), (96, 128)], seed=1, num_classes=NUM_CLASSES, objects=(60, 55))


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("crowded", [False, True], ids=["few objects", "more objects than active queries"])
def test_matching_losses_are_those_of_active_queries(watched, batch, rule, crowded):
    inputs = CROWDED if crowded else batch
    objects, positives = sum(map(len, inputs.gt_labels)), []
    for seed in range(3):
        seen, terms = watched("training", rule, seed, inputs)
        active = seen.expected(rule)[0]
        for lid in range(NUM_LAYERS):
            logits, boxes = (
                [x[image][a] for image, a in enumerate(active[lid])] for x in (seen.logits[lid], seen.boxes[lid])
            )
            *expected, count = losses_by_hand(logits, boxes, inputs)
            prefix = f"d{lid}." if lid < NUM_LAYERS - 1 else ""
            found = [float(terms[f"{prefix}{name}"]) for name in ("loss_cls", "loss_bbox", "loss_iou")]
            np.testing.assert_allclose(found, expected, rtol=1e-4)
            positives.append(count)
    assert (min(positives) < objects) == crowded and max(positives) == objects


@pytest.mark.parametrize("rule", MASK_RULES)
def test_gradients_of_matching_losses_reach_active_queries_only(watched, rule):
    silent = 0
    for seed in range(3):
        seen, terms = watched("training", rule, seed)
        (terms["loss_cls"] + terms["d0.loss_cls"] + terms["d1.loss_cls"]).backward()
        reached = (seen.all_logits.grad != 0).any(-1).numpy()  # [layers, bs, queries]
        own = slice(seen.start, seen.start + NUM_QUERIES)
        active = seen.expected(rule)[0]
        np.testing.assert_array_equal(reached[:, :, own], active)
        silent += (~active).sum()
    assert silent > 0


def losses_by_hand(logits, boxes, batch):
    """Match and sum up; return class, L1 and GIoU loss and the number of positives, per image lists of [n, ...]."""
    loss_cls = loss_l1 = loss_giou = positives = 0
    for image, (height, width) in enumerate(batch.image_sizes):
        pixels = np.array([width, height, width, height])
        p, labels = sigmoid(logits[image]), batch.gt_labels[image].numpy()
        gt = batch.gt_bboxes[image].double().numpy()
        targets = np.concatenate([gt[:, :2] + gt[:, 2:], 2 * (gt[:, 2:] - gt[:, :2])], axis=1) / 2 / pixels  # cxcywh
        own = boxes[image]
        corners = np.concatenate([own[:, :2] - own[:, 2:] / 2, own[:, :2] + own[:, 2:] / 2], axis=1) * pixels
        positive, negative = -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p)  # focal terms
        l1 = np.abs(own[:, None] - targets).sum(-1)  # [n, objects]
        giou = np.array([[generalised_iou(a, b) for b in gt] for a in corners])
        rows, columns = linear_sum_assignment(2 * (positive - negative)[:, labels] + 5 * l1 - 2 * giou)
        is_object = np.zeros(p.shape, bool)
        is_object[rows, labels[columns]] = True
        loss_cls += np.where(is_object, positive, negative).sum()
        loss_l1 += l1[rows, columns].sum()
        loss_giou += (1 - giou[rows, columns]).sum()
        positives += len(rows)
    return loss_cls / positives, 5 * loss_l1 / positives, 2 * loss_giou / positives, positives


def generalised_iou(a, b):
    """Return IoU less the share of the enclosing box that neither covers; boxes are xyxy."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = max(width, 0) * max(height, 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inter / union - (hull - union) / hull


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
