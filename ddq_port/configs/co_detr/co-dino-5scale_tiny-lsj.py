# A small Co-DINO for tests, trained as the models of large-scale jittering are: padding counts as part of the image.
_base_ = ["co-dino-5scale_tiny.py"]

model = dict(with_attn_mask=False)
