"""The page: one HTML file that needs nothing beside it, no network and no script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from elastic_export.report.facts import facts_of
from elastic_runtime.bundle import Bundle

if TYPE_CHECKING:
    from elastic_export.evaluate.result import Evaluation


def page_of(bundle: Bundle, evaluation: Evaluation | None = None) -> str:
    """The page of a bundle, with what its budgets cost on a text where that was measured. What others may have written
    into either is escaped.

    Raises:
        InputError: a report or a recipe of the bundle cannot be read, or the evaluation is of other budgets.
    """
    environment = Environment(
        loader=PackageLoader("elastic_export.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(bundle=facts_of(bundle, evaluation))
