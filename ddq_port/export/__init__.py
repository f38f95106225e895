"""DDQ-DETR as one file that runs without this package: an ONNX graph, or a program of ``torch.export``."""
