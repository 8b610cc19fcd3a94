"""What an entry of the table of ops may not say."""

from __future__ import annotations

from typing import Any

import pytest

from elastic_export.ops.op import DOMAIN, Op, Shipped


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"integers": frozenset({"z"})}, r"integers \['z'\] are not all among its inputs"),
        ({"mask": "m", "shipped": Shipped(DOMAIN, "Plain")}, "its mask m is none of its inputs"),
        ({"mask": "y"}, "it has a mask, so it needs `shipped`"),
        ({"shipped": Shipped(DOMAIN, "Other")}, "without a mask it is shipped as itself, not as Other"),
        ({"shipped": Shipped("", "Toy")}, "without a mask it is shipped as itself, not as Toy"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"op Toy: {told}"):
        Op("Toy", "toy", inputs=("x", "y"), outputs=("z",), **entry)


def test_one_that_does_not_is_taken() -> None:
    assert Op("Toy", "toy", ("x", "y"), ("z",), shipped=Shipped(DOMAIN, "Toy")).ships
    assert Op("Toy", "toy", ("x", "y"), ("z",), mask="y", shipped=Shipped(DOMAIN, "Plain")).ships
    assert not Op("Toy", "toy", ("x", "y"), ("z",), mask="y", shipped=Shipped("", "Plain")).ships
