"""A tiny detector with seeded weights, and its checkpoint."""

import pytest
import torch

from ddq_port.export.detector import OneImage
from legacy_adapters import mmdet3
from tests.models import weights_of

CONFIG = "ddq-detr-4scale_tiny-r18"


@pytest.fixture(scope="session")
def detector():
    """Return what is exported."""
    import ddq_port.models  # noqa: F401
    from ddq_port import configs

    config = configs.load(CONFIG)
    config.model.numerics = "fast"
    model = mmdet3.build_from(config)
    model.load_state_dict(weights_of("tiny_r18", 0), strict=False)
    return OneImage(model)


@pytest.fixture(scope="session")
def checkpoint(detector, tmp_path_factory):
    """Return a file of its weights."""
    file = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(dict(state_dict=detector.model.state_dict()), file)
    return file


def image(height, width):
    """Return an image of noise, [1, 3, height, width] in [0, 255]."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width)) * 255
