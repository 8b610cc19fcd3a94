"""The table of what quantising lost."""

from __future__ import annotations

import pytest

from elastic_export.evaluate.loss import LayerError, Loss, TextLoss


@pytest.mark.parametrize(
    ("layers", "worst"),
    [
        ((LayerError(0, 0.004), LayerError(3, 0.0125), LayerError(5, 0.01)), "1.25% after layer 3"),
        ((), ""),  # a file that was written by hand: the table and the page have a row all the same
    ],
)
def test_the_worst_layer_is_named(layers: tuple[LayerError, ...], worst: str) -> None:
    lost = TextLoss("small", "int8", "fp32", -0.0003, 0.00044, 0.989, 0.0075, 0.005, layers)
    assert lost.worst == worst
    _, heading, row, *_ = Loss("parent", (lost,), ()).table()
    assert heading.split()[-2:] == ["worst", "layer"]
    assert " ".join(row.split()) == f"small int8 fp32 -0.0003 0.00044 98.9% 0.75% {worst}".strip()
