"""Stage `engine`: what TensorRT says of an engine before it runs."""

from __future__ import annotations

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found


def run(place: Place) -> Found:
    """Its tensors, where they live and what they share; scratch."""
    said = list[str]()
    with place.engine_alone(said.append) as (_, opened):
        return {"facts": opened.facts(), "said": said}
