"""The build process with the builder's whole log on standard output: the layers of the engine are the end of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from elastic_export.engine import build
from elastic_export.engine.build_folder import MODEL_FILE, REQUEST_FILE
from elastic_export.engine.engine_facts import LogLine
from elastic_export.engine.request import EngineRequest

_configure = build.configure


def verbose_logger(trt: Any, log: Callable[[LogLine], None]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            log(LogLine(severity.name, text))

    return Logger()


def detailed(trt: Any, builder: Any, request: EngineRequest) -> Any:
    config = _configure(trt, builder, request)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config


if __name__ == "__main__":
    build.make_logger, build.configure = verbose_logger, detailed
    build.compile_engine(
        EngineRequest.from_json(Path(REQUEST_FILE).read_text()),
        Path(MODEL_FILE).read_bytes(),
        lambda line: print(line.text, flush=True),
        lambda: build.ProcessFacts(0, ()),
    )
