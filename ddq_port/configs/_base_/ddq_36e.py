# 36 epochs, gradients clipped.
_base_ = ["ddq_12e.py"]

optim_wrapper = dict(clip_grad=dict(max_norm=10, norm_type=2))

max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=501),
    dict(type="MultiStepLR", begin=0, end=max_epochs, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
