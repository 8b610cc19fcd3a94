"""onnxruntime, as the rest of this package loads it.

From 1.29 on it keeps, unless told not to, a device's id and a store of events for upload in the user's cache: of what a
program of ours runs nobody is told anything. A user's own setting of the variable stands.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library is loaded

import onnxruntime

__all__ = ["onnxruntime"]
