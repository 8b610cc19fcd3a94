"""The seam between our build and one TensorRT product: TensorRT for RTX, or the full TensorRT beside it.

What a product can do stands in `products.py`, for plans and graphs ask that too; how one builds with it stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from elastic_export.engine.full import TensorRT
from elastic_export.engine.rtx import TensorRTRTX
from elastic_export.products import TENSORRT, TENSORRT_RTX, Product, ProductName, product_of


class Flavour(Protocol):
    """What differs between the products; the network definition API is the same."""

    name: ProductName

    def module(self) -> Any:
        """The imported TensorRT module."""

    def check_machine(self) -> None:
        """Refuse a machine that cannot build with this product.

        Raises:
            InputError: saying what is missing.
        """

    def check_targets(self, targets: Mapping[str, Sequence[str]]) -> None:
        """Refuse GPU classes that this product cannot compile for on this machine; a plan asks that.

        Args:
            targets: the compute capabilities (`SM120`) of every target, by its name.

        Raises:
            InputError: naming the target, or what the machine lacks.
        """

    def set_target(self, trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
        """Aim a builder config at those GPU classes, which `check_targets` let pass.

        Raises:
            BuildError: the builder does not take them together.
        """

    def library_links(self) -> dict[str, Path]:
        """File names the loader must find in the build process, and what each is."""

    def preloads(self) -> tuple[str, ...]:
        """Those of them that the build process loads before all others."""

    def writes_rtx_header(self) -> bool:
        """Whether its engines begin with the header that `rtx.check_header` reads."""


FLAVOURS: dict[ProductName, Flavour] = {TENSORRT_RTX.name: TensorRTRTX(), TENSORRT.name: TensorRT()}


def flavour(name: str) -> Flavour:
    """The product of that name.

    Raises:
        InputError: there is none.
    """
    return FLAVOURS[product_of(name).name]


def check_builder(product: Product, targets: Mapping[str, Sequence[str]]) -> None:
    """Refuse an export that this machine cannot build, before its first step instead of at its first engine.

    Args:
        product: the TensorRT product.
        targets: the compute capabilities (`SM120`) of every target, by its name.

    Raises:
        InputError: saying what is missing, or naming the target.
    """
    chosen = flavour(product.name)
    chosen.check_machine()
    chosen.check_targets(targets)
