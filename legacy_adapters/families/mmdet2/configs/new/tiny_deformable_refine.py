"""Deformable DETR of MMDetection 3.x that refines its boxes, small."""
_base_ = "tiny_deformable.py"
model = dict(with_box_refine=True)
