"""`golden.safetensors`: a run of a model that any machine can repeat and compare, without torch and without the parent.

    version    int64 [1]         1
    seed       int64 [1]         of the token ids, for the record: they stand below
    ids        int64 [B, total]  each row's tokens; those that no call feeds are zero
    tokens     int64 [C]         T of each call, at most `total`
    position   int64 [C, B]      tokens already in the state, per call and row
    length     int64 [C, B]      real tokens of the row in that call, 0..T
    logits     float32 [C, B, V] reference logits of the last real token; rows of length 0 are unspecified and stored
                                 as zero
    state.<s>  float64 [65]      sketch (sketch.py) of every state after the last call, <s> its input's name; caches
                                 through `written_rows`

Row b of a call feeds ids[b, position : position + length], padded with zeros to T. The run starts with all states zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.safetensors import TensorFile, dtype_name, encode_header
from elastic_runtime.format.sketch import SIZE, Sketch

VERSION = 1
Ints = npt.NDArray[np.int64]
_AXES = {"version": 1, "seed": 1, "ids": 2, "tokens": 1, "position": 2, "length": 2}
_STATE = "state."
_AGAIN = "export the bundle again"


@dataclass(frozen=True, eq=False)
class Golden:
    """A golden run; fields as in the module docstring, `states` by the state's input name."""

    seed: int
    ids: Ints
    tokens: Ints
    position: Ints
    length: Ints
    logits: npt.NDArray[np.float32]
    states: Mapping[str, Sketch]

    @property
    def calls(self) -> int:
        """C, the number of calls."""
        return len(self.tokens)

    @property
    def ends(self) -> Ints:
        """[B]: tokens in the state of each row after the last call."""
        return np.asarray(self.position[-1] + self.length[-1])

    @property
    def reach(self) -> int:
        """Positions that the run touches, padding included: the context that it needs."""
        return int((self.position.max(axis=1) + self.tokens).max())

    def call_ids(self, call: int) -> Ints:
        """`input_ids` [B, T] of a call."""
        ids = np.zeros((len(self.ids), int(self.tokens[call])), np.int64)
        for row, (at, count) in enumerate(zip(self.position[call], self.length[call], strict=True)):
            ids[row, :count] = self.ids[row, at : at + count]
        return ids


def write_golden(path: Path, golden: Golden) -> None:
    """Write the file; equal runs give equal bytes. Raises InputError when the run breaks a rule of the docstring."""
    check_golden(golden, str(path))
    tensors: dict[str, npt.NDArray[Any]] = {
        "version": np.array([VERSION], np.int64),
        "seed": np.array([golden.seed], np.int64),
        **{name: np.ascontiguousarray(getattr(golden, name), np.int64) for name in list(_AXES)[2:]},
        "logits": np.ascontiguousarray(golden.logits, np.float32),
        **{_STATE + name: np.asarray(golden.states[name], np.float64) for name in sorted(golden.states)},
    }
    header, _ = encode_header({name: (dtype_name(array.dtype), array.shape) for name, array in tensors.items()})
    with path.open("wb") as file:
        file.write(header)
        for array in tensors.values():
            file.write(array.tobytes())


def read_golden(path: Path) -> Golden:
    """Read and check the file. Raises InputError that names it and the tensor."""
    with advised(_AGAIN):
        file = TensorFile(path)
    version = _read(file, "version", "i64", 1)
    if version.tolist() != [VERSION]:
        raise InputError(f"{path}: version", expected=str([VERSION]), found=str(version.tolist()), todo=_AGAIN)
    integers = {name: _read(file, name, "i64", axes) for name, axes in _AXES.items()}
    states = {n[len(_STATE) :]: _read(file, n, "fp64", 1) for n in file.entries if n.startswith(_STATE)}
    unknown = [n for n in file.entries if n not in (*_AXES, "logits") and not n.startswith(_STATE)]
    if unknown or integers["seed"].size != 1:
        raise InputError(
            str(path),
            expected="one seed and the tensors of a golden run",
            found=(unknown or ["other seeds"])[0],
            todo=_AGAIN,
        )
    runs = {name: integers[name] for name in list(_AXES)[2:]}
    golden = Golden(int(integers["seed"][0]), **runs, logits=_read(file, "logits", "fp32", 3), states=states)
    check_golden(golden, str(path))
    return golden


def check_golden(golden: Golden, where: str) -> None:
    """Whether the parts belong together. Raises InputError."""
    calls, rows = len(golden.tokens), len(golden.ids)
    shapes_agree = golden.position.shape == golden.length.shape == golden.logits.shape[:2] == (calls, rows)
    if not shapes_agree or not calls or not rows:
        found = f"{golden.position.shape}, {golden.length.shape} and {golden.logits.shape[:2]}"
        raise InputError(
            where,
            expected=f"position, length and logits for {calls} calls of {rows} rows, at least one",
            found=found,
            todo=_AGAIN,
        )
    _check_calls(golden, where)
    for name, values in golden.states.items():
        if values.shape != (SIZE,) or not np.isfinite(values).all():
            raise InputError(
                f"{where}: {_STATE}{name}", expected=f"{SIZE} finite numbers", found=f"{values.shape}", todo=_AGAIN
            )


def _check_calls(golden: Golden, where: str) -> None:
    at = np.zeros(len(golden.ids), np.int64)
    for call, tokens in enumerate(golden.tokens):
        length = golden.length[call]
        if tokens > golden.ids.shape[1]:
            expected = f"T of at most {golden.ids.shape[1]}, the tokens of a row"
            raise InputError(f"{where}: call {call}", expected=expected, found=str(tokens), todo=_AGAIN)
        if tokens < 1 or (length < 0).any() or (length > tokens).any():
            raise InputError(
                f"{where}: call {call}",
                expected="1 <= T and 0 <= length <= T",
                found=f"T {tokens}, {length.tolist()}",
                todo=_AGAIN,
            )
        if (golden.position[call] != at).any():
            raise InputError(
                f"{where}: call {call}",
                expected=f"position {at.tolist()}",
                found=f"{golden.position[call].tolist()}",
                todo=_AGAIN,
            )
        at = at + length
        if (at > golden.ids.shape[1]).any():
            raise InputError(
                f"{where}: call {call}",
                expected=f"at most {golden.ids.shape[1]} tokens a row",
                found=f"{at.tolist()}",
                todo=_AGAIN,
            )


def _read(file: TensorFile, name: str, dtype: str, axes: int) -> npt.NDArray[Any]:
    entry = file.entries.get(name)
    if entry is None or entry.dtype != dtype or len(entry.shape) != axes:
        found = f"{entry.dtype} {list(entry.shape)}" if entry else "no such tensor"
        raise InputError(f"{file.path}: {name}", expected=f"{dtype} of {axes} axes", found=found, todo=_AGAIN)
    return file.read(name)
