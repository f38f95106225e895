# The model of `co-dino-4scale_tiny_shapes`, merged into the official config of 12 epochs behind the data and schedule of the
# drawn images, `tiny_co_dino.py` and `co_dino_4scale.py`.
model = dict(
    backbone=dict(
        depth=18, base_channels=16, frozen_stages=-1, norm_cfg=dict(type="BN", requires_grad=True), norm_eval=False
    ),
    neck=dict(in_channels=[32, 64, 128]),
    query_head=dict(max_pos_coords=60, transformer=dict(encoder=dict(with_cp=-1))),
)
optimizer_config = dict(grad_clip=dict(max_norm=0.1))
