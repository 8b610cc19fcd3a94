"""The process of one stage: `python stage.py MODULE PLACE` calls MODULE.run(place)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its modules have names as others have
    from device_check import place

    importlib.import_module(sys.argv[1]).run(place.read(Path(sys.argv[2])))
