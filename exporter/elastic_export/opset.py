"""The version of the ONNX standard that graphs are written in."""

from typing import Final

OPSET: Final = 24  # the first with TensorScatter; onnxruntime and TensorRT-RTX take it
IR_VERSION: Final = 11
