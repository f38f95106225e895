"""Adapter of a toy detector that needs torch only; it runs in every interpreter that the worker supports."""

from __future__ import annotations

import torch
from torch import nn

from legacy_adapters.recording import taps as tap_lib
from legacy_adapters.training.steps import Training

CLASSES, QUERIES = 3, 6


class Head(nn.Module):
    """Gives class logits and boxes for each of some queries."""

    def __init__(self):
        super().__init__()
        self.cls_branch, self.reg_branch = nn.Linear(4, CLASSES), nn.Linear(4, 4)

    def init_weights(self):
        nn.init.constant_(self.cls_branch.bias, -2.0)

    def forward(self, states):
        return self.cls_branch(states), self.reg_branch(states).sigmoid()

    def predict(self, states):
        logits, boxes = self(states)
        found = []
        for image, image_boxes in zip(logits.sigmoid(), boxes):
            scores, pairs = image.flatten().topk(QUERIES)
            query = torch.div(pairs, CLASSES, rounding_mode="floor")
            found.append(dict(bboxes=image_boxes[query], scores=scores, labels=pairs % CLASSES))
        return found

    def loss(self, states, boxes, labels):
        logits, found = self(states)
        wanted = torch.stack([one[:1].expand(QUERIES, 4) for one in boxes]) / 64
        classes = torch.stack([one[:1].expand(QUERIES) for one in labels])
        return dict(
            loss_cls=nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten()),
            loss_bbox=(found - wanted).abs().mean(),
        )


class Detector(nn.Module):
    """Convolution, pooled to one state per query, and a head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.bbox_head = Head()

    def init_weights(self):
        nn.init.normal_(self.backbone[0].weight, std=0.1)
        self.bbox_head.init_weights()

    def extract_feat(self, images):
        return nn.functional.adaptive_avg_pool2d(self.backbone(images), (2, 3)).flatten(2).transpose(1, 2)


def build(options, device):
    return Detector().to(device)


def predict(model, batch):
    return model.bbox_head.predict(model.extract_feat(batch.images))


def losses(model, batch):
    states = model.extract_feat(batch.images)
    noise = torch.randn(states.shape) * 0
    terms = model.bbox_head.loss(states + noise, batch.gt_bboxes, batch.gt_labels)
    return terms, sum(terms.values())


def taps(model):
    return [*tap_lib.random_taps(), *tap_lib.rankings()]


def provenance(options):
    return dict(code_base="toy")


class Steps(Training):
    """AdamW with clipped gradients."""

    def __init__(self, model):
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)

    def watch(self, backward_done, clip):
        self.backward_done, self.clip = backward_done, clip(nn.utils.clip_grad_norm_)

    def update(self, total):
        total.backward()
        self.backward_done()
        self.clip([param for group in self.optimizer.param_groups for param in group["params"]], max_norm=0.1)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def advance(self, epoch_ended):
        pass


def training(model, options, epoch_length):
    return Steps(model)
