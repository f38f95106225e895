# DDQ FCN, ResNet-50, 12 epochs on COCO with 8 GPUs x 2 images.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_fcn/ddq_fcn_r50_1x.py.
_base_ = ["_base_/coco_detection.py", "_base_/default_runtime.py"]
custom_imports = dict(imports=["ddq_port"], allow_failed_imports=False)

model = dict(
    type="SingleStageDetector",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    # a list of one, as in the official config: weights are called `neck.0.*`
    neck=[
        dict(
            type="FPN",
            in_channels=[256, 512, 1024, 2048],
            out_channels=256,
            start_level=1,
            add_extra_convs="on_input",
            num_outs=5,
        )
    ],
    bbox_head=dict(
        type="ddq_port.DDQFCNHead",
        num_classes=80,
        in_channels=256,
        strides=(8, 16, 32, 64, 128),
        shuffle_channels=64,
        nms_pre=1000,
        dqs_cfg=dict(type="nms", iou_threshold=0.7),
        norm_cfg=dict(type="GN", num_groups=32, requires_grad=True),
    ),
    test_cfg=dict(max_per_img=300),
)

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.00005, weight_decay=0.1))

max_epochs = 12
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    # mmcv 1.x: 500 steps of warm-up, and the full rate in the step behind them
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
# 8 GPUs x 2 images
auto_scale_lr = dict(base_batch_size=16)
