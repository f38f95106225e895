"""The official Co-DETR, github Sense-X/Co-DETR, carried to this toolkit's own."""
