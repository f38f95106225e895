"""What ``simple_test`` of MMDetection 2.x gives, class by class, is flattened in all its forms."""

from __future__ import annotations

import numpy as np

from legacy_adapters.mmdet2 import detections

BOXES = [np.array([[0, 1, 2, 3, 0.5]], np.float32), np.zeros((0, 5), np.float32)]
MASK = np.ones((4, 6), bool)


def test_scores_of_masks_stand_beside_those_of_boxes():
    scores = [np.array([0.25], np.float32), []]
    (found,) = detections([(BOXES, ([[MASK], []], scores))])
    assert found["scores"].tolist() == [0.5] and found["mask_scores"].tolist() == [0.25]
    assert found["masks"].shape == (1, 4, 6) and found["mask_scores"].dtype == found["scores"].dtype


def test_no_masks_have_no_size():
    (found,) = detections([([BOXES[1]] * 2, [[], []])])
    assert found["masks"].shape == (0, 0, 0) and "mask_scores" not in found
