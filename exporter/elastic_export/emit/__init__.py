"""From a sub-model's graph to the ONNX file that ships."""

from elastic_export.emit.embed import ReadSlice
from elastic_export.emit.emit import EmittedModel, emit_model

__all__ = ["EmittedModel", "ReadSlice", "emit_model"]
