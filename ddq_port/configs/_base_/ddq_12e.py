# 12 epochs, as DDQ FCN and DDQ R-CNN are trained; the optimizer is the config's own.
custom_imports = dict(imports=["ddq_port"], allow_failed_imports=False)

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
