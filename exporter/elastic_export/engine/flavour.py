"""The seam between our build and one TensorRT product: TensorRT for RTX, or the full TensorRT beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from elastic_export.engine.full import TensorRT
from elastic_export.engine.rtx import TensorRTRTX
from elastic_runtime.errors import InputError


class Flavour(Protocol):
    """What differs between the products; the network definition API is the same."""

    name: str

    def module(self) -> Any:
        """The imported TensorRT module."""

    def check_machine(self) -> None:
        """Refuse a machine that cannot build with this product.

        Raises:
            InputError: saying what is missing.
        """

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """Aim a builder config at those GPU classes.

        Raises:
            InputError: a class this product cannot compile for.
        """

    def library_links(self) -> dict[str, Path]:
        """File names the loader must find in the build process, and what each is."""

    def preloads(self) -> tuple[str, ...]:
        """Those of them that the build process loads before all others."""

    def writes_rtx_header(self) -> bool:
        """Whether its engines begin with the header that `rtx.check_header` reads."""


FLAVOURS: dict[str, Flavour] = {"tensorrt_rtx": TensorRTRTX(), "tensorrt": TensorRT()}


def flavour(name: str) -> Flavour:
    """The product of that name.

    Raises:
        InputError: there is none.
    """
    if name not in FLAVOURS:
        raise InputError("TensorRT flavour", expected=" or ".join(FLAVOURS), found=repr(name), todo="name one of them")
    return FLAVOURS[name]
