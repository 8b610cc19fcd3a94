"""From a sub-model's graph to the ONNX file that ships."""

from elastic_export.emit.embed import ReadSlice
from elastic_export.emit.emit import EmittedModel, ModelFile, emit_model, read_model_file

__all__ = ["EmittedModel", "ModelFile", "ReadSlice", "emit_model", "read_model_file"]
