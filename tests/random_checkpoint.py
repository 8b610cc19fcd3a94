"""Checkpoints of the published shapes, of real bytes: random weights streamed to the disk, 24.6 GB in about a minute.

    python tests/random_checkpoint.py 12b FOLDER            12b, 2b or 1b4; refused where the disk is short
    python tests/random_checkpoint.py 12b FOLDER --delete   remove what was made there, and nothing else

Vectors and small tensors are those of `random_weights`. A large matrix repeats a block of whole rows of such weights,
each time begun elsewhere, so that no two rows are alike, every matrix keeps its scale and the processor waits for the
disk rather than the disk for it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.budgets import FILE_NAME, FORMAT
from elastic_export.checkpoint.config import config_document
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.synthetic import random_tensor, shard_plan, write_index
from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.format.safetensors import encode_header, itemsize
from synthetic import BUDGETS_12B, NANO_12B

_BLOCK = 2 << 20  # elements that are drawn of a matrix; the rest repeats them
_SPARE = 2 << 30  # bytes of the disk that are left to others
_MADE = "made-by-random_checkpoint"  # a file in each folder that may be deleted again


@dataclass(frozen=True)
class Shape:
    """A parent and its budgets; `shards` files hold it."""

    architecture: Architecture
    budgets: Mapping[str, Any]
    shards: int

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor in BF16."""
        shapes = self.architecture.tensor_shapes()
        return {name: math.prod(shape) * itemsize("bf16") for name, shape in shapes.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.sizes.values())


def _smaller(width: int, heads: int, head_dim: int, pattern: str, attention_heads: int) -> Architecture:
    """The 12B in another width: FFN four times, Mamba twice as wide as the model."""
    return replace(
        NANO_12B,
        pattern=pattern,
        hidden_size=width,
        ffn_sizes=(4 * width,) * pattern.count("-"),
        mamba_heads=(heads,) * pattern.count("M"),
        mamba_head_dim=head_dim,
        attention_heads=attention_heads,
    )


def _budgets(*budgets: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"format": FORMAT, "budgets": dict(budgets)}


#: By the name on the command line. The smaller ones keep the 12B's vocabulary and proportions, their budgets too.
SHAPES: Mapping[str, Shape] = {
    "12b": Shape(NANO_12B, BUDGETS_12B, 5),
    "2b": Shape(
        _smaller(2560, 64, 80, "M-M-M-M*-" * 3 + "M-M-", 24),
        _budgets(
            ("2b", {}),
            ("1b5", {"hidden_size": 2240, "intermediate_size": 8960, "mamba_num_heads": 56, "skip_layers": [29, 30]}),
            ("1b", {"hidden_size": 1792, "intermediate_size": 6144, "mamba_num_heads": 48, "mamba_head_dim": 64}),
        ),
        2,
    ),
    "1b4": Shape(
        _smaller(2048, 64, 64, "M-M-M-M*-" * 3, 16),
        _budgets(
            ("1b4", {}),
            ("0b7", {"hidden_size": 1408, "intermediate_size": 4864, "mamba_num_heads": 48, "skip_layers": [7, 8]}),
        ),
        2,
    ),
}


def check_room(folder: Path, needed: int, what: str) -> None:
    """Whether a disk has room for `needed` bytes beside what is left to others. Raises InputError with the figures."""
    place = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed + _SPARE:
        raise InputError(
            str(folder),
            expected=f"{(needed + _SPARE) / 1e9:.1f} GB free for {what}",
            found=f"{free / 1e9:.1f} GB",
            todo="make room, name a folder on another disk or ask for a smaller shape",
        )


def write_random_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a BF16 checkpoint of random weights with its budget file; equal seeds give equal bytes.

    Raises:
        InputError: the folder exists, or the disk is too small; nothing was written.
    """
    if folder.exists():
        raise InputError(str(folder), expected="no such folder yet", found="one", todo="name another, or delete it")
    check_room(folder, shape.nbytes, "the checkpoint")
    architecture, sizes = shape.architecture, shape.sizes
    shapes, plan = architecture.tensor_shapes(), shard_plan(sizes, shape.shards)
    folder.mkdir(parents=True)
    (folder / _MADE).touch()
    write_json(folder / "config.json", config_document(architecture) | {"torch_dtype": DTYPES["bf16"].full})
    write_json(folder / FILE_NAME, shape.budgets)
    blocks: dict[tuple[str, tuple[int, ...]], bytes] = {}
    rng = np.random.Generator(np.random.PCG64(seed))
    for file, names in plan.items():
        header, _ = encode_header({name: ("bf16", shapes[name]) for name in names}, {"format": "pt"})
        with (folder / file).open("wb", buffering=0) as out:
            out.write(header)
            for name in names:
                for piece in _pieces(architecture, name, shapes[name], rng, blocks):
                    out.write(piece)
    write_index(folder, plan, shape.nbytes)
    return folder


def delete_random_checkpoint(folder: Path) -> None:
    """Remove a folder that `write_random_checkpoint` began. Raises InputError: it is another one."""
    if not (folder / _MADE).is_file():
        todo = "delete it yourself if you mean it"
        raise InputError(str(folder), expected="a checkpoint made here", found="something else", todo=todo)
    shutil.rmtree(folder)


def _pieces(
    architecture: Architecture,
    name: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    blocks: dict[tuple[str, tuple[int, ...]], bytes],
) -> Iterator[memoryview]:
    """The bytes of a tensor. `blocks` keeps what is drawn once for all layers: by the last word of a name and shape."""
    if math.prod(shape) <= 1 << 16:
        yield memoryview(_bf16(random_tensor(architecture, name, shape, rng)))
        return
    key = (name.rsplit(".layers.", 1)[-1].split(".", 1)[-1], shape)
    if key not in blocks:
        rows = min(shape[0], max(1, _BLOCK // math.prod(shape[1:])))
        # One element more than whole rows: the same numbers come back in other columns.
        # Of in_proj only the few rows of dt are spread less than up_proj's, and they must be the last.
        drawn = name.replace("in_proj", "up_proj")
        blocks[key] = _bf16(random_tensor(architecture, drawn, (rows, *shape[1:]), rng)) + b"\x00\x00"
    block, left = memoryview(blocks[key]), math.prod(shape) * itemsize("bf16")
    begin = itemsize("bf16") * int(rng.integers(0, len(block) // 4))
    while left:
        piece = block[begin : begin + left]
        yield piece
        left, begin = left - len(piece), 0


def _bf16(array: np.ndarray[Any, Any]) -> bytes:
    return array.astype(DTYPES["bf16"].numpy).tobytes()


def main() -> None:
    """Make or delete a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delete", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.delete:
            delete_random_checkpoint(arguments.folder)
        else:
            write_random_checkpoint(arguments.folder, SHAPES[arguments.shape])
    except ElasticError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
