# Co-DINO, five levels, ResNet-50, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: Sense-X/Co-DETR, projects/configs/co_dino/co_dino_5scale_r50_1x_coco.py.
_base_ = ["../_base_/default_runtime.py", "_base_/coco_12e.py", "_base_/co_dino.py"]
