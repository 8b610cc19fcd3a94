"""`elastic::LastToken`: each row's last real token, lowered to a gather."""

from __future__ import annotations

from typing import Final

from elastic_export.ops.op import Op

LAST_TOKEN: Final = Op(
    name="LastToken",
    folder="last_token",
    inputs=("x", "length"),
    outputs=("y",),
    integers=frozenset({"length"}),
)
