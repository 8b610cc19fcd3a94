"""Weights on a device: strided copies from the files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from elastic_runtime.driver.blocks import strided_blocks
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

    Tensors stay in the dtype of the file. Main memory holds what is on its way: the device's buffers, and a band a
    thread.
    """
    arena = Arena(device, {item.name: item.nbytes for item in recipe.inputs})
    try:
        for item, mapped in iter_sources(recipe, directory, external=external, files=files):
            for part, window, file in zip(item.parts, item.windows, mapped, strict=True):
                blocks = strided_blocks(part.parent_shape, part.runs, part.itemsize, window)
                device.upload_blocks(arena.addresses[item.name], file.reader(part.offset), blocks)
        device.finish_uploads()
    except BaseException:
        with suppress(BuildError):  # a device that failed fails here too; the first error is the one to tell
            device.finish_uploads()
        arena.free()
        raise
    return arena
