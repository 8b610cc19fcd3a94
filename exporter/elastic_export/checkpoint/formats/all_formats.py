"""The formats that are read. One of 4-bit integers in blocks, for a plugin of ours, would stand beside them."""

from __future__ import annotations

from typing import Final

from elastic_export.checkpoint.formats.format import Format
from elastic_export.checkpoint.formats.fp8 import FP8
from elastic_export.checkpoint.formats.nvfp4 import NVFP4

FORMATS: Final[tuple[Format, ...]] = (FP8, NVFP4)
#: By the dtype of the matrix itself, which tells them apart.
FORMAT_OF: Final = {fmt.pieces[0].dtype: fmt for fmt in FORMATS}
