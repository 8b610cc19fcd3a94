"""Stage 6: one serialized TensorRT engine out of one ONNX file, in a process of its own, on a machine without a GPU."""
