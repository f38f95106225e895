# A small DDQ R-CNN for tests, with the schedule of 12 epochs.
_base_ = ["_base_/coco_detection.py", "_base_/default_runtime.py", "_base_/ddq_12e.py", "_base_/ddq_rcnn_tiny.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.0001, weight_decay=0.05))
