"""Weights on a device: strided copies straight from the mapped files, nothing in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from elastic_runtime.blocks import strided_blocks
from elastic_runtime.device import Arena, Device
from elastic_runtime.mapped import MappedFile
from elastic_runtime.safetensors import itemsize
from elastic_runtime.weights import WeightRecipe, iter_sources


def upload_weights(
    device: Device,
    recipe: WeightRecipe,
    directory: Path,
    *,
    external: Path | None = None,
    files: dict[Path, MappedFile] | None = None,
) -> Arena:
    """Every weight input on the device; arguments and errors as `iter_weights`.

    Pages of a file are unmapped again when they have been copied: main memory holds one tensor at a time.
    """
    arena = Arena(device, {item.name: item.nbytes for item in recipe.inputs})
    try:
        for item, file in iter_sources(recipe, directory, external=external, files=files):
            source = file.array(item.offset, np.dtype(np.uint8), (item.parent_nbytes,))
            blocks = strided_blocks(item.parent_shape, item.runs, itemsize(item.dtype))
            device.upload_blocks(arena.addresses[item.name], source, blocks)
            file.release(item.offset, item.parent_nbytes)
    except BaseException:
        arena.free()
        raise
    return arena
