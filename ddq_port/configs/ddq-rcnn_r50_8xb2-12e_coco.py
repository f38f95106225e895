# DDQ R-CNN, ResNet-50, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_rcnn/ddq_rcnn_r50_1x.py.
_base_ = ["_base_/coco_detection.py", "_base_/default_runtime.py", "_base_/ddq_12e.py", "_base_/ddq_rcnn.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.0001, weight_decay=0.05))
