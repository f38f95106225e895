# Weights are the comparison's own, so that none are read from elsewhere.
model = dict(backbone=dict(init_cfg=None))
