"""From a sub-model's graph to the ONNX file that ships, and to the recipe of its weights."""

from elastic_export.emit.embed import ReadSlice
from elastic_export.emit.emit import EmittedModel, emit_model
from elastic_export.emit.recipe import shared_recipe, sliced_recipe
from elastic_export.emit.slices import check_slices

__all__ = ["EmittedModel", "ReadSlice", "check_slices", "emit_model", "shared_recipe", "sliced_recipe"]
