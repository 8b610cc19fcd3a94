"""What took part in an export."""

from __future__ import annotations

import importlib.metadata
import platform

from elastic_export import __version__

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime-gpu", "onnxruntime", "tensorrt-rtx", "tbb")


def versions() -> dict[str, str]:
    """Name -> version of Python and of every package that takes part and is installed."""
    found = {"elastic-export": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
