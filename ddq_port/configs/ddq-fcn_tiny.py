# A small DDQ FCN for tests, with the schedule of 12 epochs.
_base_ = ["_base_/coco_detection.py", "_base_/default_runtime.py", "_base_/ddq_12e.py", "_base_/ddq_fcn_tiny.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.00005, weight_decay=0.1))
