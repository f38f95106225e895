"""Under seeded weights the classes among the detections vary, so that a wrong label of most of them is seen."""

import pytest
import torch

from converters.rules.ports import port
from ddq_port import configs
from parity.adapters import ddq_port as adapter
from parity.sides.prepare import seeded_batch
from parity.sides.sides import both_layouts, num_classes


@pytest.fixture(scope="module")
def detected():
    """Return a function that names the classes which a variant detects in the seeded batch under seeded weights."""
    models = {}

    def classes(variant, seed, sizes):
        if variant not in models:
            models[variant] = adapter.build({"config": str(configs.path(configs.VARIANTS[variant]))}, "cpu").eval()
        weights = both_layouts(port("ddq_detr", variant), seed, None)["new"]
        kept = {key: value for key, value in models[variant].state_dict().items() if not value.is_floating_point()}
        models[variant].load_state_dict({**kept, **weights})
        with torch.no_grad():
            classes = num_classes(port("ddq_detr", variant))
            found = adapter.predict(models[variant], seeded_batch(sizes, seed, classes))
        return {label for image in found for label in image["labels"].tolist()}

    return classes


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("variant", ["tiny_4scale", "tiny_5scale", "tiny_swinl"])
def test_every_class_is_detected_at_tiny_width(detected, variant, seed):
    assert detected(variant, seed, [(128, 160), (96, 128)]) == {0, 1, 2}


def test_at_least_half_of_the_classes_are_detected_at_full_width(detected):
    assert len(detected("r50_4scale", 4, [(256, 320), (224, 256)])) >= 40  # the seed with the fewest of ten: 52
