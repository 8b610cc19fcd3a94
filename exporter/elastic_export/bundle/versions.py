"""What took part in an export."""

from __future__ import annotations

import importlib.metadata
import platform

from elastic_export import __version__
from elastic_export.products import TENSORRT_RTX, Product

_PACKAGES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime-gpu", "onnxruntime")


def versions(product: Product = TENSORRT_RTX) -> dict[str, str]:
    """Name -> version of Python and of every package that takes part in an export with that product and is
    installed.
    """
    found = {"elastic-export": __version__, "python": platform.python_version()}
    for name in (*_PACKAGES, product.name, "tbb"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
