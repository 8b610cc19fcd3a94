"""Where what can be made again is kept between runs: a folder of the user's, who may have none."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from elastic_runtime.errors import BuildError


def cache_home(environ: Mapping[str, str], name: str) -> Path:
    """The folder of ELASTIC_CACHE itself; without that `name` in XDG_CACHE_HOME, else in LOCALAPPDATA on Windows and in
    `~/.cache` elsewhere.

    Raises:
        BuildError: it lies in a home that nobody knows: HOME is not set, and the system has no entry of the user, as in
            a container that runs under any user's number.
    """
    own = environ.get("ELASTIC_CACHE")
    usual = environ.get("LOCALAPPDATA") if sys.platform == "win32" else None
    folder = own or str(Path(environ.get("XDG_CACHE_HOME") or usual or "~/.cache") / name)
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        todo = "name a folder that you can write with ELASTIC_CACHE, or set HOME"
        found = "none: HOME is not set, and the system does not know this user"
        raise BuildError(f"the cache {folder}", expected="a home folder", found=found, todo=todo) from None
