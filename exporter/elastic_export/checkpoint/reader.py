"""A Hugging Face checkpoint, opened lazily: headers are read and checked, tensors are mapped when asked for."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.checkpoint.alignment import check_alignment
from elastic_export.checkpoint.announced import KEY, contradictions, is_modelopt, read_announced
from elastic_export.checkpoint.budgets import FILE_NAME, read_budgets
from elastic_export.checkpoint.companions import check_file, find_companions, is_companion
from elastic_export.checkpoint.config import parse_config, read_config
from elastic_export.checkpoint.dequantised import find_quantised, told
from elastic_export.checkpoint.formats.format import Codes
from elastic_export.checkpoint.inventory import check_inventory, find_prefix, model_dtype, observed_widths
from elastic_export.checkpoint.names import check_utf8
from elastic_export.checkpoint.quantised import quantisation_file
from elastic_export.checkpoint.shards import open_shards, shorten, weight_files
from elastic_export.checkpoint.tensors import QuantisedTensor, StoredTensor, TensorRef
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array
from elastic_export.runs import TensorRuns, bands_of, runs_shape
from elastic_runtime.errors import InputError
from elastic_runtime.format.safetensors import TensorFile

__all__ = ["Checkpoint", "TensorRef", "checkpoint_name"]

#: Elements that are dequantised at once where a tensor is read: their pieces stay in the processor's caches.
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """An elastic parent: every tensor the architecture asks for is there once, in the right shape.

    Attributes:
        path: the folder.
        name: what to call it: the folder's name, or the repository's for a snapshot of the Hugging Face cache.
        config: the raw `config.json`.
        architecture: what the config says.
        prefix: `backbone` or `model`, the first word of the tensors' names.
        dtype: `bf16`, `fp16` or `fp32`: of all matrices, quantised ones before they were; vectors and `conv1d.weight`
            may be fp32 besides.
        tensors: the tensors of the architecture, by the checkpoint's names, in the order of the data's way.
        formats: how many matrices are read by dequantising, by format; empty for most checkpoints.
        shards: the files that hold them.
        budgets: by name, in the file's order.
        warnings: what a user should be told: keys not understood, budgets not nested, globs that match nothing.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    architecture: Architecture
    prefix: str
    dtype: str
    tensors: Mapping[str, StoredTensor]
    formats: Mapping[str, int]
    shards: tuple[Path, ...]
    budgets: dict[str, Budget]
    warnings: tuple[str, ...]
    _files: Mapping[Path, TensorFile] = field(repr=False, compare=False)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        budgets_file: Path | None = None,
        ignore_tensors: Sequence[str] = (),
        ignore_config: Sequence[str] = (),
        require_budgets: bool = True,
        widths_from_shapes: bool = False,
    ) -> Checkpoint:
        """Read config, index, headers and budgets of a folder, and check them against each other.

        Args:
            directory: the folder with `config.json` and the shards.
            budgets_file: read instead of the folder's `elastic_config.json`.
            ignore_tensors: globs of tensors that are no part of the architecture and may be left out.
            ignore_config: unknown keys of `config.json` that have no effect on the model.
            require_budgets: whether a checkpoint without a budget file is an error; if not, `budgets` is not read.
            widths_from_shapes: let the tensors say how wide each FFN and how many each layer's Mamba heads are, for
                checkpoints of other tools whose config has one number for layers that differ.

        Raises:
            InputError: naming the file, and the key or tensor.
        """
        if not directory.is_dir():
            instead = "a file" if directory.exists() else "no such folder"
            raise InputError(
                str(directory), expected="a checkpoint folder", found=instead, todo="name the folder of config.json"
            )
        check_utf8(str(directory), checkpoint_name(directory), "a folder with a name in UTF-8", "rename the folder")
        check_file(directory / "config.json")
        config = read_config(directory / "config.json")
        announced = read_announced(directory, config)
        known = {key: value for key, value in config.items() if key != KEY or not is_modelopt(value)}
        architecture, warnings = parse_config(known, str(directory / "config.json"), ignore_config)
        files = open_shards(directory, ignore_tensors)
        found = {
            entry.name: TensorRef(entry.name, path, entry.dtype, entry.shape, entry.offset, entry.nbytes)
            for path, file in files.items()
            for entry in file.entries.values()
        }
        prefix = find_prefix(found)
        if widths_from_shapes:
            architecture = observed_widths(architecture, prefix, found)
        shapes = architecture.tensor_shapes(prefix)
        dtype = model_dtype(shapes, found, config)

        def number(ref: TensorRef) -> np.ndarray[Any, Any]:
            return files[ref.file].read(ref.name)

        held = find_quantised(str(directory), shapes, found, announced, dtype, number)
        described = quantisation_file(directory)
        inventory = check_inventory(str(directory), architecture, prefix, held.tensors, ignore_tensors, described)
        budgets, more = _read_budgets(directory, budgets_file, architecture) if require_budgets else ({}, [])
        check_alignment(str(budgets_file or directory / FILE_NAME), architecture, prefix, budgets, held.tensors)
        stored = {name.removesuffix(".weight"): name in held.quantised for name, s in shapes.items() if len(s) == 2}
        more += told(str(directory), held) + contradictions(announced, stored)
        return cls(
            path=directory,
            name=checkpoint_name(directory),
            config=config,
            architecture=architecture,
            prefix=prefix,
            dtype=inventory.dtype,
            tensors={name: held.tensors[name] for name in inventory.names},
            formats=held.counts(),
            shards=tuple(files),
            budgets=budgets,
            warnings=(*warnings, *more, *inventory.warnings, *_not_read(directory, files)),
            _files=files,
        )

    def read(self, name: str, rows: slice | npt.NDArray[np.int64] = slice(None)) -> np.ndarray[Any, Any]:
        """A tensor, or some of its rows (no step in the slice), in its own dtype: a read-only view of the file, of
        which nothing is copied, but for rows given by number. A quantised matrix comes in float32, dequantised.

        Raises:
            InputError: the architecture has no tensor of that name, or its format does not allow an element.
        """
        tensor = self._known(name)
        if isinstance(tensor, TensorRef):
            return self._view(tensor)[rows]
        pieces = self.pieces(tensor)
        numbers = np.arange(tensor.shape[0])[rows]
        whole = np.empty((len(numbers), tensor.shape[1]), np.float32)
        step = max(1, _AT_ONCE // tensor.shape[1])
        for at in range(0, len(numbers), step):
            some = numbers[at : at + step]
            part = slice(int(some[0]), int(some[-1]) + 1) if isinstance(rows, slice) else some
            whole[at : at + step] = tensor.decode([piece[part] for piece in pieces], some)
        return whole

    def cut(self, name: str, runs: TensorRuns) -> np.ndarray[Any, Any]:
        """The kept elements of a tensor, as `read` gives them; of a quantised matrix nothing else is dequantised.

        Raises:
            InputError: see `read`.
        """
        tensor = self._known(name)
        if isinstance(tensor, TensorRef):
            return slice_array(self._view(tensor), runs)
        pieces, at = self.pieces(tensor), 0
        kept = np.empty(runs_shape(runs), np.float32)
        for first, rows in bands_of(runs[0], max(1, _AT_ONCE // tensor.shape[1]), gap=0):
            count = sum(rows[-1])
            part = tensor.cut([piece[first : first + count] for piece in pieces], (rows, runs[1]), first)
            kept[at : at + len(part)] = part
            at += len(part)
        return kept

    def pieces(self, tensor: QuantisedTensor) -> list[Codes]:
        """Read-only views of a quantised matrix's pieces by rows, as the bytes they are."""
        return [self._view(ref).view(np.uint8) for ref in tensor.by_rows]

    def _view(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        return self._files[ref.file].read(ref.name)

    def _known(self, name: str) -> StoredTensor:
        if name not in self.tensors:
            near = difflib.get_close_matches(name, self.tensors, n=1)
            todo = f"the nearest is {near[0]}" if near else "see the names in model.safetensors.index.json"
            subject = f"{self.path}, tensor {name!r}"
            raise InputError(subject, expected="a tensor of the architecture", found="no such name", todo=todo)
        return self.tensors[name]

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; arrays made from it stay valid and read the file again."""
        tensor = self.tensors[name]
        for ref in tensor.by_rows if isinstance(tensor, QuantisedTensor) else (tensor,):
            self._files[ref.file].release(ref.name)

    def companions(self) -> tuple[Path, ...]:
        """See `find_companions`."""
        return find_companions(self.path)


def checkpoint_name(directory: Path) -> str:
    """The folder's name; the repository's for `models--OWNER--NAME/snapshots/COMMIT` of the Hugging Face cache."""
    resolved = directory.resolve()
    repository = resolved.parent.parent.name
    if resolved.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.rsplit("--", 1)[-1]
    return resolved.name


def _not_read(directory: Path, read: Collection[Path]) -> list[str]:
    """What lies beside the shards and may have been meant."""
    names = {path.name for path in read}
    others = [name for name in weight_files(directory) if name not in names]
    found = [f"{directory}: not read: {shorten(others)}; the tensors are those of {shorten(sorted(names))}"]
    notes = found if others else []
    if folders := sorted(path.name for path in directory.iterdir() if is_companion(path.name) and path.is_dir()):
        notes.append(
            f"{directory}: {shorten(folders)} not carried along: a bundle takes files; licences that must be shipped "
            "belong beside the shards"
        )
    if not (directory / "tokenizer.json").exists():
        kinds = ("tokenizer.model", "tokenizer.model.v3", "tekken.json", "vocab.json", "merges.txt")
        if seen := [name for name in kinds if (directory / name).exists()]:
            notes.append(
                f"{directory}: {shorten(seen)} without tokenizer.json, which alone is read: the bundle will take and "
                "give token ids and no text"
            )
    return notes


def _read_budgets(
    directory: Path, budgets_file: Path | None, architecture: Architecture
) -> tuple[dict[str, Budget], list[str]]:
    path = budgets_file if budgets_file is not None else directory / FILE_NAME
    check_file(path)
    if budgets_file is not None or path.exists():
        return read_budgets(path, architecture)
    count = architecture.parameters()
    named, output = shlex.quote(str(directory)), shlex.quote(str(path))
    raise InputError(
        f"{directory}, budgets",
        expected=f"the file {FILE_NAME}, or --budgets FILE",
        found="neither",
        todo="write one; or derive it from cut checkpoints, the vendor's: "
        f"elastic-export budgets derive --parent {named} --sliced DIR --output {output}; or have budgets of a size "
        f"proposed: elastic-export budgets propose --checkpoint {named} "
        f"--params {_about(0.75 * count)},{_about(0.5 * count)} --text FILE --output {output}",
    )


def _about(count: float) -> str:
    """A size as `budgets propose` takes it: 9.2B."""
    unit, sign = next(
        (unit, sign) for unit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "K")) if count >= unit or sign == "K"
    )
    return f"{count / unit:.1f}{sign}"
