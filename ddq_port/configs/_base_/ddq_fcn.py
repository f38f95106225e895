# DDQ FCN with a ResNet-50.
# Values: jshilong/DDQ, branch main, projects/configs/ddq_fcn/ddq_fcn_r50_1x.py.
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
