"""How this stage writes JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """JSON as people read it; the same bytes for the same document on any system."""
    path.write_bytes((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
