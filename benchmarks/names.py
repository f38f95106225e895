"""Names of what :mod:`benchmarks.models` measures."""

from __future__ import annotations

FLOOR, OURS, FAST, MMDET = "floor", "ours", "fast", "mmdet"
SIDES = {FLOOR: "floor", OURS: "this package", FAST: "this package, fast", MMDET: "MMDetection 3.3.0"}
INFERENCE, TRAINING = "inference", "training step"
#: Objects of each image; COCO has 7 on average.
OBJECTS = 7
