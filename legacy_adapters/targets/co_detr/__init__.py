"""This toolkit's Co-DETR: what the families that are carried to it have in common."""
