"""TensorRT for RTX: builds for every RTX generation with no GPU and no driver.

Its memory allocator in the build process is oneTBB's, from the package `tbb`: TensorRT-RTX 1.7.1 makes and frees small
objects by the million, which glibc's allocator takes long for, the more the larger the network
(`tests/bench/compile_12b.py` measures it, with and without `--system-allocator`). oneTBB's is preloaded by its bare
name, found in the build folder: LD_PRELOAD takes no path with a blank or a colon in it.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_export.packages import package_folder, package_version
from elastic_export.products import TENSORRT_RTX, ProductName
from elastic_runtime.errors import BuildError, InputError

#: The parser opens this name once a plugin was created; the wheel ships only the one with the version in it.
PARSER_OPENS = "libtensorrt_rtx.so"
INSTALL = f"{TENSORRT_RTX.install()} (Linux x86-64)"
ALLOCATOR = "tbb"
#: Replaces malloc, free and their kin; the other library is what it needs.
PRELOADED = "libtbbmalloc_proxy.so.2"
LIBRARIES = (PRELOADED, "libtbbmalloc.so.2")
#: What its builder compiles for, without the digits' dot: a plan asks this, and waits for no TensorRT.
COMPUTE_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
MAGIC = b"vtrt"
HEADER_BYTES = 64
_LAYOUT = struct.Struct("<4s12xQ3B")


class TensorRTRTX:
    """The `tensorrt-rtx` distribution of PyPI."""

    name: ProductName = TENSORRT_RTX.name

    def module(self) -> Any:
        """See `Flavour`."""
        return importlib.import_module(TENSORRT_RTX.module)

    def check_machine(self) -> None:
        """See `Flavour`: it needs its package and nothing else, neither GPU nor driver."""
        if package_version(self.name) is None:
            raise InputError(self.name, expected="to be installed", found="no such package", todo=INSTALL)

    def check_targets(self, targets: Mapping[str, Sequence[str]]) -> None:
        """See `Flavour`: it compiles for every class that it knows, on any machine."""
        *others, last = COMPUTE_CAPABILITIES
        for target, wanted in targets.items():
            unknown = [name for name in wanted if name not in COMPUTE_CAPABILITIES]
            if unknown:
                raise InputError(
                    f"target {target}",
                    expected=f"compute capability {', '.join(others)} or {last}, for which TensorRT-RTX compiles",
                    found=", ".join(unknown),
                    todo="leave that target out",
                )

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """See `Flavour`: several classes may share one engine; `check_targets` knew them."""
        config.num_compute_capabilities = len(compute_capabilities)
        for index, name in enumerate(compute_capabilities):
            if not config.set_compute_capability(trt.ComputeCapability.__members__[name], index):
                raise BuildError(
                    "compute capability",
                    expected=f"{name} to be accepted",
                    found="a refusal",
                    todo="build targets of different classes one by one, with --add",
                )

    def library_links(self) -> dict[str, Path]:
        """See `Flavour`: the parser opens this name at the first plugin, and without it the process aborts."""
        folder = package_folder("tensorrt_rtx_libs")
        libraries = sorted(folder.glob(f"{PARSER_OPENS}.*")) if folder is not None else []
        return ({PARSER_OPENS: libraries[0]} if libraries else {}) | allocator_links()

    def preloads(self) -> tuple[str, ...]:
        """See `Flavour`: the allocator, where it is installed."""
        return (PRELOADED,) if allocator_links() else ()

    def writes_rtx_header(self) -> bool:
        """See `Flavour`."""
        return True


def allocator_links() -> dict[str, Path]:
    """File names the loader must find in the build process, and what each is; none where the package is not whole."""
    import importlib.metadata  # noqa: PLC0415  # asked for before the build process is started, not in it

    try:
        files = importlib.metadata.files(ALLOCATOR) or []
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


@dataclass(frozen=True)
class EngineHeader:
    """`size` is that of the whole file in bytes, `version` (major, minor, patch) that of the TensorRT-RTX which wrote
    it.
    """

    size: int
    version: tuple[int, int, int]


def read_header(path: Path) -> EngineHeader:
    """Header of an engine file, read without TensorRT.

    The layout is not documented; it was read off engines of 1.7.1 and holds for one and for several compute
    capabilities: `vtrt` at 0, the size of the whole file as unsigned 64-bit little-endian at 16, then a byte each of
    major, minor and patch version. That these three are the version is known because `Runtime.get_engine_validity`
    reports another one for an engine where any of them differs, and for no other byte near. The byte after them is the
    build number of 1.7.1.116, which that function does not read either: a build above 255 has to stand elsewhere, so
    it is not compared.

    Why not ask that function: without a driver, and a build needs none, it ends with INVALID and no reason for whole
    engines and for those of another version alike.

    Raises:
        BuildError: the file is shorter than a header or is no engine.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise BuildError(
            str(path),
            expected="a TensorRT-RTX engine",
            found=f"{len(head)} bytes starting {head[:4]!r}",
            todo=f"export again; if it stays so, {TENSORRT_RTX.install()}",
        )
    _, size, major, minor, patch = _LAYOUT.unpack_from(head)
    return EngineHeader(size, (major, minor, patch))


def check_header(path: Path, version: str) -> EngineHeader:
    """Check that the file is whole and written by that TensorRT-RTX version, up to the patch; return its header.

    Raises:
        BuildError: it is not.
    """
    header = read_header(path)
    if header.size != path.stat().st_size:
        raise BuildError(
            str(path), expected=f"{header.size} bytes", found=f"{path.stat().st_size}", todo="export again"
        )
    release, written = ".".join(version.split(".")[:3]), ".".join(map(str, header.version))
    if written != release:
        raise BuildError(
            str(path),
            expected=f"an engine of TensorRT-RTX {release}",
            found=f"one of {written}",
            todo="install one tensorrt-rtx only: its Python package and its libraries are of different versions",
        )
    return header
