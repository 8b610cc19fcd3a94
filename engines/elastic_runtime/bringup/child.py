"""One stage in a process of its own.

    python -m elastic_runtime.bringup.child STAGE BUNDLE FOLDER RESULT ENGINE PLUGINS TRUSTED WEIGHTS

What it found is in the file RESULT when it ends well or with an error; a crash of TensorRT leaves none, and its words
are in the log that the parent keeps.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from elastic_runtime.bringup.stages import STAGES, TRUSTED, Place
from elastic_runtime.errors import ElasticError


def main(arguments: list[str]) -> int:
    """Run the stage; 0 also where it found an error, which is a finding."""
    faulthandler.enable()
    stage, bundle, folder, result, engine, plugins, trusted, weights = arguments
    given, external = (Path(path) if path else None for path in (plugins, weights))
    place = Place(Path(bundle), Path(folder), engine, given, trusted == TRUSTED, external)
    found: dict[str, Any]
    try:
        found = {"found": STAGES[stage][0](place)}
    except ElasticError as error:
        found = {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # of any library: the report is there to bring it home
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}", "kind": "fault"}
    Path(result).write_text(json.dumps(found, indent=1, default=str), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
