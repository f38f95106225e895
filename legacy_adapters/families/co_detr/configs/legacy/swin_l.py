# Weights are the comparison's own, so that none are read from a file.
model = dict(backbone=dict(pretrained=None))
