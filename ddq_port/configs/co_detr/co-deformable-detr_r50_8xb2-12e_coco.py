# Co-Deformable-DETR, ResNet-50, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: Sense-X/Co-DETR, projects/configs/co_deformable_detr/co_deformable_detr_r50_1x_coco.py.
_base_ = ["../_base_/default_runtime.py", "_base_/coco_12e.py", "_base_/co_deformable.py"]

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={"sampling_offsets": dict(lr_mult=0.1), "reference_points": dict(lr_mult=0.1)},
    )
)
