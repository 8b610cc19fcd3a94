"""An engine that is a text, in place of TensorRT's, for tests of what an export does around the builder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest


def text_engine(request: EngineRequest, text: str = "engine", **facts: Any) -> EngineFacts:
    """Write it; what a build of it would have said, but for `facts`."""
    request.output.write_text(text)
    usual = EngineFacts(
        size=len(text),
        seconds=1.5,
        peak_rss=123,
        activation_bytes=(1000, 2000),
        plugin_layers={},
        in_place={port.name: port.output for port in request.states() if port.alias(request.ops) == "must"},
        layers=1,
        unused_inputs=(),
        flavour=request.flavour,
        version="1.7.1",
        chances=(),
        oversize=(),
        warnings=(),
    )
    return replace(usual, **facts)
