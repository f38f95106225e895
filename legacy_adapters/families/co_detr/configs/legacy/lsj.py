# What the official configs of large-scale jittering change in the model: padding counts as part of the image.
model = dict(with_attn_mask=False)
