# A small Co-DINO with a ResNet-18, trained from scratch on the CPU on the images that `ddq-train demo` draws.
_base_ = ["../_base_/shapes.py", "_base_/co_dino_tiny.py"]

model = dict(
    # powers of two: MMDetection 2.x multiplies by 1 / std, and gets the same bits
    data_preprocessor=dict(mean=[128.0, 128.0, 128.0], std=[64.0, 64.0, 64.0]),
    # trained as a whole, normalisation included
    backbone=dict(
        depth=18,
        base_channels=16,
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
    ),
    query_head=dict(max_pos_coords=60, transformer=dict(encoder=dict(with_cp=0))),
)
optim_wrapper = dict(clip_grad=dict(max_norm=0.1))
