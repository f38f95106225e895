# A small Co-Deformable-DETR for tests, with the schedule of 12 epochs.
_base_ = ["../_base_/default_runtime.py", "_base_/coco_12e.py", "_base_/co_deformable_tiny.py"]

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={"sampling_offsets": dict(lr_mult=0.1), "reference_points": dict(lr_mult=0.1)},
    )
)
