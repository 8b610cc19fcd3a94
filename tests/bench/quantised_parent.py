"""A whole export of a quantised parent in the 4B's shape and published layout: seconds and memory of every step.

    PYTHONPATH=tests python tests/bench/quantised_parent.py --layout fp8|nvfp4|mixed [--folder DIR] [-- EXPORT OPTION…]

Makes the checkpoint (2.6 to 5.2 GB) in DIR, a folder below the temporary one unless given, exports it beside it as
sliced BF16, verified, and deletes both. What follows `--` goes to `elastic-export`: `--weights shared --quantize int8`
makes int8 of it. The rows of a matrix repeat a block
that is drawn and quantised once. Memory and times are measured as `tests/bench/export.py` does.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from export import export_steps

from bench_report import Report
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import random_tensor
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.safetensors import encode_header, itemsize
from family import SHAPES
from quantised_checkpoint import (
    PATTERN_4B,
    QUANTISE,
    Kind,
    describe_quantised,
    nano_4b_fp8,
    nano_4b_mixed,
    nano_4b_nvfp4,
    weight_only_4b,
)
from random_checkpoint import check_room

_BLOCK = 2 << 20  # elements that are drawn of a matrix
LAYOUTS: dict[str, Kind] = {"fp8": nano_4b_fp8, "nvfp4": nano_4b_nvfp4, "mixed": nano_4b_mixed}
_DTYPES = {torch.uint8: "u8", torch.float8_e4m3fn: "fp8_e4m3", torch.float32: "fp32", torch.bfloat16: "bf16"}


def main() -> None:
    """Make, export, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=LAYOUTS, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("options", nargs="*", help="of elastic-export, behind --")
    arguments = parser.parse_args()
    folder = arguments.folder / f"4b-{arguments.layout}"
    options = ["--budget", "4b", "--target", "rtx3090", "--ops", "plugin", "--weights", "sliced", *arguments.options]
    try:
        check_room(arguments.folder, 14 << 30, "the checkpoint and its sub-model in BF16")
        size = write(folder, replace(SHAPES["4b"], pattern=PATTERN_4B), LAYOUTS[arguments.layout])
        rows = export_steps(folder, arguments.folder, options)
    except ElasticError as error:
        sys.exit(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(Report(f"`elastic-export {' '.join(options)}` of the 4B in {size / 1e9:.1f} GB", tuple(rows)).text())


def write(folder: Path, arch: Architecture, kind: Kind) -> int:
    """Write it; returns the bytes of its tensors."""
    folder.mkdir(parents=True)
    rng, kinds, matrices = np.random.default_rng(0), dict[str, str](), list[str]()
    drawn: dict[tuple[str, tuple[int, ...], str | None], dict[str, torch.Tensor]] = {}
    tensors: dict[str, tuple[str, tuple[int, ...], torch.Tensor]] = {}
    for name, shape in arch.tensor_shapes().items():
        module = name.removesuffix(".weight")
        chosen = kind(module) if len(shape) == 2 else None
        matrices += [module] if len(shape) == 2 else []
        kinds |= {module: chosen} if chosen else {}
        key = (name.rsplit(".layers.", 1)[-1].split(".", 1)[-1], shape, chosen)
        if key not in drawn:
            drawn[key] = _drawn(arch, name, shape, chosen, rng)
        for piece, tensor in drawn[key].items():
            if piece != "input_scale" or not weight_only_4b(module):
                rows = shape[:1] if tensor.ndim else ()
                own = name if piece == "weight" or chosen is None else f"{module}.{piece}"
                tensors[own] = (_DTYPES[tensor.dtype], (*rows, *tensor.shape[1:]), tensor)
    header, _ = encode_header({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as out:
        out.write(header)
        for dtype, shape, block in tensors.values():
            for piece in _repeated(block, math.prod(shape) * itemsize(dtype)):
                out.write(piece)
    plain = [module for module in matrices if module not in kinds]
    describe_quantised(folder, arch, kinds, plain, ("file", "config"))
    budgets = {"format": "elastic-budgets/1", "budgets": {"4b": {}}}
    write_json(folder / "elastic_config.json", budgets)
    return (folder / "model.safetensors").stat().st_size


def _drawn(
    arch: Architecture, name: str, shape: tuple[int, ...], chosen: str | None, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """The module's tensors, of as many rows as are drawn."""
    large = math.prod(shape) > _BLOCK
    rows = max(1, _BLOCK // math.prod(shape[1:])) if large else shape[0]
    own = name.replace("in_proj", "up_proj") if large else name  # whose last rows are spread otherwise
    weight = torch.from_numpy(random_tensor(arch, own, (rows, *shape[1:]), rng))
    return QUANTISE[chosen](weight)[0] if chosen else {"weight": weight.bfloat16()}


def _repeated(block: torch.Tensor, left: int) -> Iterator[memoryview]:
    data = memoryview(block.contiguous().reshape(-1).view(torch.uint8).numpy())
    while left:
        yield data[:left]
        left -= min(left, len(data))


if __name__ == "__main__":
    main()
