"""Deformable DETR of MMDetection 2.x that refines its boxes, small."""
_base_ = "tiny_deformable.py"
model = dict(bbox_head=dict(with_box_refine=True))
