# DDQ R-CNN, ResNet-50, 36 epochs on COCO with 8 GPUs x 2 images, images augmented as for DETR.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_rcnn/ddq_rcnn_r50_3x.py.
_base_ = ["_base_/coco_detection_detr.py", "_base_/default_runtime.py", "_base_/ddq_36e.py", "_base_/ddq_rcnn.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.0001, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.0001, by_epoch=False, begin=0, end=2001),
    dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
