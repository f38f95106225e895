"""What code changes of the batch it is given is noticed, also if it then fails."""

import pytest
import torch

from legacy_adapters.bases.detection import DetectionAdapter
from legacy_adapters.inputs import Batch
from legacy_adapters.recording.untouched import Untouched


def tensors():
    batch = Batch(torch.zeros(1, 3, 4, 4), ((4, 4),), ((4, 4),), ((1.0, 1.0),), [torch.ones(2, 4)], [torch.tensor([0, 1])])
    return batch.to_tensors(), DetectionAdapter().batch


def test_a_change_in_place_is_named_by_phase_and_tensor():
    untouched = Untouched()
    with untouched.given("predict", *tensors()) as given:
        given.images + 1
    with untouched.given("train", *tensors()) as given:
        given.gt_bboxes[0].mul_(0.5)
    assert untouched.changed == [("train", "gt_bboxes.0")]


def test_a_change_before_an_error_is_noticed():
    untouched = Untouched()
    with pytest.raises(ValueError), untouched.given("predict", *tensors()) as given:
        given.images.add_(1)
        raise ValueError
    assert untouched.changed == [("predict", "images")]
