"""Installed packages, looked at without importing them, and what another Python needs to find ours."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    import importlib.metadata  # noqa: PLC0415  # half of what the build process would import; it asks for none

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_folder(package: str) -> Path | None:
    """Folder of an importable package, or None; its code does not run."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def child_path(environment: Mapping[str, str]) -> str:
    """PYTHONPATH of a process of ours that has this environment: where our packages are imported from, then what it
    inherits.
    """
    folders = (package_folder(name) for name in ("elastic_export", "elastic_runtime"))
    roots = [str(folder.parent) for folder in folders if folder is not None]
    inherited = environment.get("PYTHONPATH")
    return os.pathsep.join([*roots, inherited] if inherited else roots)
