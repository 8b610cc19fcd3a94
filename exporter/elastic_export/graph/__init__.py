"""`torch.export` of the masked parent, once, into an `onnx_ir.Model` whose weights are names and shapes.

`trace_parent` is imported when it is asked for: torch takes seconds to load, and plans and passes need the facts only.
"""

from typing import TYPE_CHECKING

from elastic_export.graph.facts import Facts, StateSlice, WeightSlice, facts_of

if TYPE_CHECKING:
    from elastic_export.graph.trace import trace_parent

__all__ = ["Facts", "StateSlice", "WeightSlice", "facts_of", "trace_parent"]

if not TYPE_CHECKING:  # a type checker that sees it takes any name for one of ours

    def __getattr__(name: str) -> object:
        if name != "trace_parent":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from elastic_export.graph.trace import trace_parent  # noqa: PLC0415

        return trace_parent
