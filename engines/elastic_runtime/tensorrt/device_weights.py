"""Weights on a device: strided copies straight from the mapped files, nothing in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from elastic_runtime.driver.blocks import strided_blocks
from elastic_runtime.driver.device import Arena, Device
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.format.safetensors import itemsize
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
                blocks = strided_blocks(part.parent_shape, part.runs, itemsize(part.dtype), window)
                device.upload_blocks(arena.addresses[item.name], source, blocks)
                file.release(part.offset, part.parent_nbytes)
    except BaseException:
        arena.free()
        raise
    return arena
