"""What the TensorRT products can do, as far as graphs and plans must know; the builds themselves are engine/'s.

Every number of TensorRT-RTX was measured with 1.7.1 on one attention layer (boolean mask, in-place caches, grouped
heads), on a machine without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from elastic_runtime.errors import InputError

ProductName = Literal["tensorrt-rtx", "tensorrt"]


@dataclass(frozen=True)
class FusedAttention:
    """A product's dedicated kernel for ONNX `Attention` over a cache, and the shapes that it takes."""

    precisions: frozenset[str]
    least_heads: int
    head_dims: range
    rows: int

    def takes(self, precision: str, query_heads: int, head_dim: int) -> bool:
        """Whether attention of that shape is built with it."""
        return precision in self.precisions and query_heads >= self.least_heads and head_dim in self.head_dims

    def largest_context(self, head_dim: int) -> int:
        """Cache rows over which it decodes."""
        return self.rows - head_dim


@dataclass(frozen=True)
class Product:
    """A TensorRT product.

    Attributes:
        name: as options, manifests and PyPI spell it.
        module: what Python imports.
        requirement: what pip is to be asked for: the versions that a build is written for.
        called: its name in sentences.
        abi: what its headers call it, in the interface that a plugin library was built to (`rtx-1.7`).
        attention: its fused attention kernel; None where none is known, and attention is emitted as matrix products.
        plugins: whether a node with a function body becomes the plugin registered under its name.
        experimental: whether nobody has run a build with it.
    """

    name: ProductName
    module: str
    requirement: str
    called: str
    abi: str
    attention: FusedAttention | None
    plugins: bool
    experimental: bool = False

    def install(self) -> str:
        """What to do where it is missing or another version: people who installed us have no pyproject.toml to read."""
        return f"install it: pip install '{self.requirement}'"

    def fuses_attention(self, precision: str, query_heads: int, head_dim: int) -> bool:
        """Whether attention of that shape is emitted as one `Attention` node."""
        return self.attention is not None and self.attention.takes(precision, query_heads, head_dim)


TENSORRT_RTX: Final = Product(
    "tensorrt-rtx",
    "tensorrt_rtx",
    "tensorrt-rtx>=1.7.1,<1.8",
    "TensorRT-RTX",
    "rtx",
    # Decode keeps one FP32 score per cache row, and the query, in 96 KiB of shared memory: S + head dim ≤ 24576. Found
    # by bisection for head dims 16, 32, 64, 80, 96, 112, 128, 160, 192 and 256 on SM120 and for 128 on SM75, 80, 86 and
    # 89, in BF16 and FP16 (SM75: FP16 only): always the same border. Fewer than 4 heads, FP32, or a head dim that is no
    # multiple of 8 from 16 to 256: no kernel, neither documented nor found.
    FusedAttention(frozenset({"bf16", "fp16"}), 4, range(16, 257, 8), 96 * 1024 // 4),
    plugins=True,
)
#: Its fused attention was never tried: matrix products build everywhere.
TENSORRT: Final = Product(
    "tensorrt", "tensorrt", "tensorrt>=10.15", "the full TensorRT", "enterprise", None, plugins=True, experimental=True
)
PRODUCTS: Final[dict[ProductName, Product]] = {product.name: product for product in (TENSORRT_RTX, TENSORRT)}


def product_of(name: str) -> Product:
    """The product of that name.

    Raises:
        InputError: there is none.
    """
    for product in PRODUCTS.values():
        if product.name == name:
            return product
    raise InputError("--flavour", expected=" or ".join(PRODUCTS), found=repr(name), todo="name one of them, or none")
