"""Detection data in COCO format: a generated set that needs no download, and the check of one's own."""
