# DDQ FCN, ResNet-50, 36 epochs on COCO with 8 GPUs x 2 images, images augmented as for DETR.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_fcn/ddq_fcn_r50_3x_detr_aug.py.
_base_ = ["_base_/coco_detection_detr.py", "_base_/default_runtime.py", "_base_/ddq_36e.py", "_base_/ddq_fcn.py"]

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.00005, weight_decay=0.1))
