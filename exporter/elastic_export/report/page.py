"""The page: one HTML file that needs nothing beside it, no network and no script."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from elastic_export.report.facts import facts_of
from elastic_runtime.bundle import Bundle


def page_of(bundle: Bundle) -> str:
    """The page of a bundle. What others may have written into it is escaped.

    Raises:
        InputError: a report or a recipe of the bundle cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("elastic_export.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(bundle=facts_of(bundle))
