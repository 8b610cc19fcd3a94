"""Two implementations must agree: the masked parent in PyTorch and the ONNX file that ships, read from its bytes."""
