"""This toolkit's DDQ FCN and DDQ R-CNN: what the families that are carried to them have in common."""
