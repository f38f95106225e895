"""Co-DETR in the layout of MMDetection's `projects/CO-DETR`, carried to this toolkit's own."""
