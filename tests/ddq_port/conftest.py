"""A tiny DDQ-DETR with weights that are not degenerate."""

import copy

import pytest
import torch

import ddq_port.models  # noqa: F401  # isort: skip
from mmengine.registry import DefaultScope

from ddq_port import configs
from ddq_port.registry import MODELS
from legacy_adapters import mmdet3
from parity.sides.prepare import seeded_batch
from tests.models import weights_of


@pytest.fixture
def config():
    """The tiny config, as mmengine reads it."""
    return configs.load("ddq-detr-4scale_tiny")


@pytest.fixture
def build(config):
    """Return a function that builds the tiny model with overrides merged into its config."""

    def make(seed=0, **overrides):
        own = copy.deepcopy(config)  # mmdet writes into the config it builds from
        own.merge_from_dict(dict(model=overrides))
        with DefaultScope.overwrite_default_scope("mmdet"):
            model = MODELS.build(own.model)
        model.load_state_dict(weights_of("tiny_4scale", seed), strict=True)
        return model

    return make


@pytest.fixture
def batch():
    """Two images of different sizes, padded."""
    return seeded_batch([(128, 160), (96, 128)], seed=0, num_classes=3)


@pytest.fixture
def losses():
    """Return a function that computes a model's loss terms and their sum in training mode."""

    def compute(model, batch):
        torch.manual_seed(0)
        model.train()
        return mmdet3.losses(model, batch)

    return compute
