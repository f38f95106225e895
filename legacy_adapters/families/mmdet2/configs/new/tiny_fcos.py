"""FCOS of MMDetection 3.x, small: its config has not changed since 2.x."""
_base_ = "../legacy/tiny_fcos.py"
