"""The memory allocator of the build process: oneTBB's, from the package `tbb`.

TensorRT-RTX 1.7.1 makes and frees small objects by the million, which glibc's allocator takes long for, the more the
larger the network: `tests/bench/compile_12b.py` measures it, with and without `--system-allocator`. oneTBB's is
preloaded by its bare name, found in the build folder: LD_PRELOAD takes no path with a blank or a colon in it.
"""

from __future__ import annotations

from pathlib import Path

DISTRIBUTION = "tbb"
#: Replaces malloc, free and their kin; the other library is what it needs.
PRELOADED = "libtbbmalloc_proxy.so.2"
LIBRARIES = (PRELOADED, "libtbbmalloc.so.2")


def allocator_links() -> dict[str, Path]:
    """File names the loader must find in the build process, and what each is; none where the package is not whole."""
    import importlib.metadata  # noqa: PLC0415  # asked for before the build process is started, not in it

    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        links = {file.name: Path(file.locate()).absolute() for file in files if file.name in LIBRARIES}
        return links if len(links) == len(LIBRARIES) and all(path.is_file() for path in links.values()) else {}
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):  # or its records are damaged
        return {}


def is_preloaded() -> bool:
    """Whether this process allocates with it."""
    try:
        return PRELOADED in Path("/proc/self/maps").read_text()
    except OSError:
        return False
