# Weights are the comparison's own, so that none are read from a file that a Swin asks for.
model = dict(backbone=dict(pretrained=None))
