"""What a stage found, as a file: `found`, or `error` and `kind`, or neither but its `last_words`.

`ended` says how, where the process did not end by itself and well.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

Found = dict[str, Any]
#: The key of what a stage did not do, and its reason. That is no failure.
NOT_RUN = "not_run"


def write_result(path: Path, result: Found) -> None:
    """The file, whole or not at all, and on the disk: the next stage may take the machine down."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(result, indent=1, default=str))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_result(path: Path) -> Found | None:
    """What is in it; None where there is none, or nothing that makes sense."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def number(value: float) -> float | str:
    """For JSON, which has no nan and no inf: those as text."""
    return float(value) if math.isfinite(value) else str(float(value))
