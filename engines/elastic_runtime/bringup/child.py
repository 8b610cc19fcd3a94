"""One stage in a process of its own.

    python -m elastic_runtime.bringup.child STAGE RESULT PLACE

PLACE is a `Place` as JSON. What the stage found is in the file RESULT when it ends well or with an error; a crash of
TensorRT leaves none, and its words are in the log that the parent keeps.
"""

from __future__ import annotations

import faulthandler
import sys
import traceback
from pathlib import Path

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found, write_result
from elastic_runtime.bringup.stages import STAGES
from elastic_runtime.errors import ElasticError


def main(arguments: list[str]) -> int:
    """Run the stage; 0 also where it found an error, which is a finding."""
    faulthandler.enable()
    stage, result, place = arguments
    found: Found
    try:
        found = {"found": STAGES[stage].body(Place.from_json(place))}
    except ElasticError as error:
        found = {"error": str(error), "kind": type(error).__name__}
    except Exception as error:  # of any library: the report is there to bring it home
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}", "kind": "fault"}
    write_result(Path(result), found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
