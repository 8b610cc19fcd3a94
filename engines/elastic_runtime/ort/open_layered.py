"""Opening a budget's model.onnx for one run, layer by layer: what a machine with less memory than weights can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, ElasticError, UnavailableError
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.ort.open_onnx import missing_package

if TYPE_CHECKING:  # an engine's consumer has no onnx
    from elastic_runtime.ort.layered_twin import LayeredTwin


class NotLayeredError(BuildError):
    """The file is not made of layers as ours are. It may be right all the same: `open_onnx` runs it whole."""


def open_layered(bundle: Bundle, budget: BudgetEntry) -> LayeredTwin:
    """The twin of a budget's file that runs a layer at a time.

    Raises:
        NotLayeredError: the file has no such layers, or is no model.
        UnavailableError: onnxruntime is not installed.
        InputError: the file of its weights is damaged.
    """
    try:
        import onnx  # noqa: PLC0415

        from elastic_runtime.ort.layered_twin import LayeredTwin  # noqa: PLC0415
        from elastic_runtime.ort.weight_source import OutsideTensors, Recipe  # noqa: PLC0415
    except ImportError as error:
        raise missing_package(error) from error
    path = bundle.path / budget.model
    recipe = None if budget.weights is None else bundle.recipe(budget)
    try:
        model = onnx.load(path, load_external_data=False)
        if recipe is None or budget.weights is None:
            return LayeredTwin(model, budget.kept_layers, OutsideTensors(path), budget.name)
        weights = Recipe(recipe, (bundle.path / budget.weights).parent, bundle.external)
        return LayeredTwin(model, budget.kept_layers, weights, budget.name)
    except (MemoryError, UnavailableError):
        raise
    except Exception as error:  # a file of somebody else's is not what the cut asks for in ways that nobody lists
        todo = "it is run whole, or export the bundle again"
        raise NotLayeredError(
            budget.model, expected="a file to cut into its layers", found=_reason(error), todo=todo
        ) from error


def _reason(error: Exception) -> str:
    """What the cut says, without advice: it is no fault of a file to be made in another way."""
    if isinstance(error, ElasticError):
        return f"{error.subject} with {error.found} in place of {error.expected}"
    return f"{type(error).__name__}: {error}".strip()
