"""Shapes of three published models of the family, for figures that are worked out by hand."""

from __future__ import annotations

from elastic_export.layers.architecture import Architecture

LIMIT = (0.0, float("inf"))
SHAPES = {
    "12b": Architecture(
        "M-M-M-M*-" * 6 + "M-M-M-M-", 131072, 5120, (20480,) * 28, (128,) * 28, 80, 8, 128, 4, 40, 8, 128, 1e-5, LIMIT
    ),
    "9b": Architecture(
        "M" * 27 + "-" * 25 + "*" * 4, 131072, 4480, (15680,) * 25, (128,) * 27, 80, 8, 128, 4, 40, 8, 128, 1e-5, LIMIT
    ),
    "4b": Architecture(
        "M" * 21 + "-" * 17 + "*" * 4, 131072, 3136, (12544,) * 17, (96,) * 21, 80, 8, 128, 4, 40, 8, 128, 1e-5, LIMIT
    ),
}
