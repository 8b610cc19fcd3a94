"""`torch.export` of the masked parent, once, into an `onnx_ir.Model` whose weights are names and shapes."""

from elastic_export.graph.facts import Facts, StateSlice, WeightSlice, facts_of
from elastic_export.graph.trace import trace_parent

__all__ = ["Facts", "StateSlice", "WeightSlice", "facts_of", "trace_parent"]
