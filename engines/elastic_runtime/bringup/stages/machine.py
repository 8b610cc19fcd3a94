"""Stage `machine`: what is known without calling the driver from here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.process import ask
from elastic_runtime.bringup.redaction import without_identities
from elastic_runtime.bringup.results import Found
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import free_ram
from elastic_runtime.format.records import encode
from elastic_runtime.tensorrt.preflight import package_cuda

_PACKAGES = (
    "elastic-runtime",
    "elastic-plugins",
    "tensorrt-rtx",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx-cu12",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "onnx",
)
_PATIENCE = 20.0  # seconds for nvidia-smi: with a driver that hangs it never answers
_MOST = 60_000  # characters of its report


def run(place: Place) -> Found:
    """System, packages, the bundle's manifest, and NVIDIA's own report without what names one machine."""
    versions = {name: _version(name) for name in _PACKAGES}
    found: Found = {
        "system": platform.platform(),
        "wsl": "microsoft" in platform.release().lower(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "free_ram": free_ram(),
        "packages": {name: version for name, version in versions.items() if version},
        "package_cuda": package_cuda(),
        "manifest": encode(Bundle.open(place.bundle, external=place.external).manifest),
    }
    if smi := shutil.which("nvidia-smi"):
        try:
            said, failed = ask([smi, "-q"], _PATIENCE)
        except OSError as error:
            said, failed = "", str(error)
        found["nvidia_smi"] = without_identities(said)[:_MOST]
        if failed:
            found["nvidia_smi_failed"] = failed
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
