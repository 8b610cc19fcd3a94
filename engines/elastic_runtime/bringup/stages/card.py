"""Stage `card`: what the driver says. Nothing before it calls the driver, which may be what hangs."""

from __future__ import annotations

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.driver.cuda import driver_version
from elastic_runtime.driver.free_memory import card
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.records import encode


def run(place: Place) -> Found:  # as every stage
    """The card, or why there is none; the newest CUDA that the driver runs."""
    try:
        found: Found = {"card": encode(card())}
    except ElasticError as error:
        found = {"no_card": str(error)}
    return found | {"driver_cuda": driver_version()}
