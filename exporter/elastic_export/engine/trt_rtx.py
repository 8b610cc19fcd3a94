"""TensorRT for RTX: builds for every RTX generation with no GPU and no driver."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic_export.engine.allocator import PRELOADED, allocator_links
from elastic_export.engine.packages import package_folder, package_version
from elastic_runtime.errors import BuildError, InputError

#: The parser opens this name once a plugin was created; the wheel ships only the one with the version in it.
PARSER_OPENS = "libtensorrt_rtx.so"


class TensorRTRTX:
    """The `tensorrt-rtx` distribution of PyPI."""

    name = "tensorrt_rtx"

    def module(self) -> Any:
        """See `Flavour`."""
        return importlib.import_module(self.name)

    def check_machine(self) -> None:
        """See `Flavour`: it needs its package and nothing else, neither GPU nor driver."""
        if package_version("tensorrt-rtx") is None:
            raise InputError("tensorrt-rtx", expected="to be installed", found="no such package", todo=INSTALL)

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """See `Flavour`: several classes may share one engine."""
        config.num_compute_capabilities = len(compute_capabilities)
        for index, name in enumerate(compute_capabilities):
            known = sorted(set(trt.ComputeCapability.__members__) - {"NONE", "CURRENT"})
            if name not in known:
                raise InputError(
                    "compute capability", expected=", ".join(known), found=name, todo="leave that target out"
                )
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


INSTALL = "install it: pip install 'tensorrt-rtx>=1.7.1,<1.8' (Linux x86-64)"
