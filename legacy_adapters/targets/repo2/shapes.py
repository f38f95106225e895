# Data and schedule of `ddq_port/configs/_base_/shapes.py` as MMDetection 2.x has them, merged into an official config.
_norm = dict(type="Normalize", mean=[128.0, 128.0, 128.0], std=[64.0, 64.0, 64.0], to_rgb=True)
_classes = ("ellipse", "rectangle", "triangle")
_test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(128, 128),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True),
            dict(type="RandomFlip"),
            _norm,
            dict(type="Pad", size_divisor=32),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
_tested = dict(ann_file="annotations/val.json", img_prefix="val/", classes=_classes, pipeline=_test_pipeline)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=0,
    train=dict(
        ann_file="annotations/train.json",
        img_prefix="train/",
        classes=_classes,
        filter_empty_gt=False,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="RandomFlip", flip_ratio=0.5),
            _norm,
            dict(type="Pad", size_divisor=32),
            dict(type="DefaultFormatBundle"),
            dict(type="Collect", keys=["img", "gt_bboxes", "gt_labels"]),
        ],
    ),
    val=_tested,
    test=_tested,
)
optimizer = dict(_delete_=True, type="AdamW", lr=0.002, weight_decay=0.05)
optimizer_config = dict(_delete_=True, grad_clip=dict(max_norm=10, norm_type=2))
lr_config = dict(
    _delete_=True,
    policy="step",
    by_epoch=False,
    warmup="constant",
    warmup_iters=50,
    warmup_ratio=0.125,
    step=[400, 540],
    gamma=0.25,
)
runner = dict(_delete_=True, type="IterBasedRunner", max_iters=600)
checkpoint_config = dict(interval=300, by_epoch=False)
evaluation = dict(_delete_=True, interval=600, metric="bbox")
