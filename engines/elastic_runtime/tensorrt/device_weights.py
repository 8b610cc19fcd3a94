"""Weights on a device: strided copies from the mapped files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from elastic_runtime.driver.blocks import Block, strided_blocks
from elastic_runtime.driver.device import Arena, Device
from elastic_runtime.errors import BuildError
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.format.weights import WeightRecipe, iter_sources


def upload_weights(
    device: Device,
    recipe: WeightRecipe,
    directory: Path,
    *,
    external: Path | None = None,
    files: dict[Path, MappedFile] | None = None,
) -> Arena:
    """Every weight input on the device, by its name at an aligned address; arguments and errors as `iter_weights`.

    Tensors stay in the dtype of the file. Its pages are unmapped again when they have been copied: main memory holds
    one tensor at a time.
    """
    arena = Arena(device, {item.name: item.nbytes for item in recipe.inputs})
    try:
        for item, mapped in iter_sources(recipe, directory, external=external, files=files):
            for part, window, file in zip(item.parts, item.windows, mapped, strict=True):
                source = file.array(part.offset, np.dtype(np.uint8), (part.parent_nbytes,))
                blocks = strided_blocks(part.parent_shape, part.runs, part.itemsize, window)
                file.fetch(part.offset, _reach(blocks))
                device.upload_blocks(arena.addresses[item.name], source, blocks)
                file.release(part.offset, part.parent_nbytes)
        device.finish_uploads()
    except BaseException:
        with suppress(BuildError):  # a device that failed fails here too; the first error is the one to tell
            device.finish_uploads()
        arena.free()
        raise
    return arena


def _reach(blocks: Sequence[Block]) -> int:
    """Bytes of the source up to the end of its last row that is read."""
    return max((b.source + (b.height - 1) * b.source_pitch + b.width for b in blocks), default=1)
