# A small DDQ R-CNN for tests, with the schedule of 12 epochs.
_base_ = ["_base_/coco_detection.py", "_base_/default_runtime.py", "_base_/ddq_12e.py", "_base_/ddq_rcnn_tiny.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.0001, weight_decay=0.05))

# eight channels in a group, as at full width: of a map of one place a group of two holds two numbers, and where these are
# nearly equal, their normalisation is nothing but rounding
model = dict(rpn_head=dict(norm_cfg=dict(num_groups=8)))
