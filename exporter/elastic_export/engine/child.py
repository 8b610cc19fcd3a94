"""The build process: `python -m elastic_export.engine.child`, in a folder that `build_folder.py` laid out.

`process.py` starts it without address randomisation. It reads request.json, processor and model.onnx and writes
result.json; all names are relative and always the same. It imports neither onnx nor torch, and numpy for a plugin's
fields only: small, quick, and the same memory each time.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

from elastic_export.engine.build import ProcessFacts, compile_engine
from elastic_export.engine.build_folder import (
    MODEL_FILE,
    PROCESSOR_FILE,
    REQUEST_FILE,
    RESULT_FILE,
    build_error,
    error_to_json,
    fault_to_json,
    write_file,
)
from elastic_export.engine.engine_facts import LogLine
from elastic_export.engine.isolation import die_with_parent, left_to_chance, peak_rss
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import NO_ROOM, ElasticError

#: Longer than any build, seconds.
FOREVER = 1e6


def main() -> int:
    """Build what the folder asks for; exit 0 when a result was written, be it an engine, a named error or a fault.

    With a number of NO_ROOM where there is no room for one.
    """
    die_with_parent()
    try:
        result = _built()
    except Exception as error:
        result = _failure(error)
    try:
        write_file(Path(RESULT_FILE), json.dumps(result).encode())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return error.errno
    return 0


def _built() -> dict[str, Any]:
    request = EngineRequest.from_json(Path(REQUEST_FILE).read_text())
    processor = Path(PROCESSOR_FILE).read_text()
    chances = left_to_chance(int(processor) if processor else None)  # before there is a second thread
    outcome: list[dict[str, Any] | BaseException] = []
    # A thread of its own allocates in places of its own: what Python allocated before (a module compiled here, loaded
    # from its cache there) moves TensorRT's pointers less, and with them the engine's bytes. It begins when this thread
    # is about to sleep and is never asked to make way for it: that would happen at a time of the clock's choice, and
    # what both allocate would lie elsewhere.
    gate, interval = threading.Lock(), sys.getswitchinterval()

    def work() -> None:
        with gate:
            outcome.append(_outcome(request, chances))

    worker = threading.Thread(target=work)
    sys.setswitchinterval(FOREVER)
    try:
        with gate:
            worker.start()
        worker.join()
    finally:
        sys.setswitchinterval(interval)
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _outcome(request: EngineRequest, chances: tuple[str, ...]) -> dict[str, Any] | BaseException:
    try:
        model = Path(MODEL_FILE).read_bytes()
        return {"facts": compile_engine(request, model, _say, lambda: ProcessFacts(peak_rss(), chances)).to_json()}
    except Exception as error:
        return _failure(error)
    except BaseException as error:  # handed to the main thread, which raises it
        return error


def _failure(error: Exception) -> dict[str, Any]:
    """What a person reads of an exception, whatever it is."""
    shown = error if isinstance(error, ElasticError) else build_error(error)
    return {"error": error_to_json(shown)} if shown else {"fault": fault_to_json(error)}


def _say(line: LogLine) -> None:
    with contextlib.suppress(OSError):  # the log's disk is full; TensorRT, which calls this, knows no exceptions
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
