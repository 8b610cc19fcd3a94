"""The base of every pass: requires → call → ensures, with our errors coming through as themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import onnx_ir as ir
import onnx_ir.passes

from elastic_runtime.errors import ElasticError

logger = logging.getLogger(__name__)


class GraphPass(ir.passes.InPlacePass):
    """A pass over one budget's graph.

    Subclasses say in a numbered docstring what they change and when they must not fire; `requires` and `ensures` check
    the contract and raise `InternalError`: what a budget and a checkpoint may be is settled before a graph is traced,
    so whatever a pass cannot do is a fault of ours. `call` returns whether anything changed.
    """

    def __call__(self, model_or_result: ir.Model | ir.passes.PassResult, /) -> ir.passes.PassResult:
        """Run the pass with its contract checked."""
        try:
            return super().__call__(model_or_result)
        except ir.passes.InvariantError as error:
            if isinstance(error.__cause__, ElasticError):
                raise error.__cause__ from None
            raise

    @property
    def name(self) -> str:
        """The name that logs and dumps show."""
        return type(self).__name__


#: Sees the graph after a pass: (its place in the order, the pass, the graph).
After = Callable[[int, GraphPass, ir.Model], None]


def run_passes(model: ir.Model, passes: Iterable[GraphPass], after: After | None = None) -> ir.Model:
    """Run passes in order; `after(step, pass, model)` sees the graph between them (dumps of `--debug`)."""
    for step, each in enumerate(passes):
        result = each(model)
        logger.debug("pass %d %s: %s", step, each.name, "changed" if result.modified else "unchanged")
        if after is not None:
            after(step, each, model)
    return model
