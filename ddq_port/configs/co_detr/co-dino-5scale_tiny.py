# A small Co-DINO for tests, with the schedule of 12 epochs.
_base_ = ["../_base_/default_runtime.py", "_base_/coco_12e.py", "_base_/co_dino_tiny.py"]
