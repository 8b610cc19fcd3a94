"""Which matrices of a checkpoint are stored in a format that is read by dequantising: each by the tensors there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from elastic_export.checkpoint.announced import FILE, KEY, Announced
from elastic_export.checkpoint.foreign import foreign_format
from elastic_export.checkpoint.formats.all_formats import FORMAT_OF, FORMATS
from elastic_export.checkpoint.formats.format import Format, Piece
from elastic_export.checkpoint.tensors import QuantisedTensor, StoredTensor, TensorRef
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import PRECISIONS

_WEIGHT: Final = ".weight"
#: Scales of what goes into a matrix and of caches: engines compute in the model's dtype and keep caches in it.
_OF_ACTIVATIONS: Final = ("input_scale",)
_OF_CACHES: Final = (".k_proj.k_scale", ".v_proj.v_scale")
_AGAIN: Final = "download the checkpoint again, or quantise it again"
_HALF: Final = (
    "quantise it again: ModelOpt before 0.46 wrote block scales of half the size with mtq.compress or low_memory_mode"
)


@dataclass(frozen=True)
class Dequantised:
    """A checkpoint's tensors by the names that an unquantised one has.

    Attributes:
        tensors: all that were found, but that each quantised matrix stands for its pieces.
        read_past: scales that nothing here computes with.
    """

    tensors: Mapping[str, StoredTensor]
    read_past: tuple[str, ...] = ()

    @property
    def quantised(self) -> dict[str, QuantisedTensor]:
        """The matrices that are."""
        return {name: tensor for name, tensor in self.tensors.items() if isinstance(tensor, QuantisedTensor)}

    def counts(self) -> dict[str, int]:
        """How many there are of each format."""
        used = [tensor.format for tensor in self.quantised.values()]
        return {fmt.name: used.count(fmt) for fmt in FORMATS if fmt in used}


def find_quantised(
    subject: str,
    shapes: Mapping[str, tuple[int, ...]],
    found: Mapping[str, TensorRef],
    announced: Sequence[Announced],
    dtype: str,
    read: Callable[[TensorRef], np.ndarray[Any, Any]],
) -> Dequantised:
    """Put each quantised matrix in the place of its pieces.

    Args:
        subject: the checkpoint, named in errors.
        shapes: of the architecture's tensors.
        found: what the shards hold.
        announced: what the checkpoint says of its quantisation.
        dtype: of the model's other matrices.
        read: the numbers of a tensor; asked for scales of whole matrices only.

    Raises:
        InputError: a scale that is missing, too many, of a wrong dtype or shape or no positive number, a matrix of the
            wrong shape, quantised ones that nothing announces and announced ones that are not there. Matrices in other
            formats are left as they were found, to be refused with those that are nobody's.
    """
    matrices = {name.removesuffix(_WEIGHT): shape for name, shape in shapes.items() if _is_matrix(name, shape)}
    held, past, used = dict[str, StoredTensor](), list[str](), set[str]()
    beside = _by_module(matrices, found)
    for module, shape in matrices.items():
        weight = beside[module].get("weight")
        if foreign_format(shape, beside[module]):
            continue
        if weight is None and "weight_scale" in beside[module]:
            expected = "it beside its scales"
            raise InputError(
                f"{subject}, tensor {module + _WEIGHT!r}", expected=expected, found="no such tensor", todo=_AGAIN
            )
        fmt = None if weight is None else FORMAT_OF.get(weight.dtype)
        if fmt is None:
            continue
        held[module + _WEIGHT] = _Module(subject, module, shape, fmt, beside[module]).tensor(dtype, read)
        used |= {f"{module}.{piece.name}" for piece in fmt.pieces}
        past += [f"{module}.{name}" for name in _OF_ACTIVATIONS if name in beside[module]]
    if announced:
        past += [name for name in found if name.endswith(_OF_CACHES) and name.rpartition(".")[0] in matrices]
    result = Dequantised(held | {name: ref for name, ref in found.items() if name not in {*used, *past}}, tuple(past))
    weights = [module.get("weight") for module in (beside[name] for name in matrices)]
    plain = all(weight is not None and weight.dtype in PRECISIONS for weight in weights)
    _check_announced(subject, result, announced, plain=plain)
    return result


def _is_matrix(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and name.endswith(_WEIGHT)


def _by_module(
    matrices: Mapping[str, object], found: Mapping[str, TensorRef]
) -> defaultdict[str, dict[str, TensorRef]]:
    """Module -> its tensors by their names after the module's, which may have dots in them."""
    modules: defaultdict[str, dict[str, TensorRef]] = defaultdict(dict)
    for name, ref in found.items():
        module = name
        while "." in module:
            module = module.rpartition(".")[0]
            if module in matrices:
                modules[module][name[len(module) + 1 :]] = ref
                break
    return modules


def _check_announced(subject: str, found: Dequantised, announced: Sequence[Announced], *, plain: bool) -> None:
    first = next(iter(found.quantised.values()), None)
    if first is not None and not announced:
        raise InputError(
            f"{subject}, tensor {first.name!r}",
            expected=f"{FILE}, or {KEY} in config.json, beside quantised weights",
            found=f"neither, and it is in {first.format.name}",
            todo=f"download {FILE} too: without it nobody can tell what else was done to the weights",
        )
    said = next((place for place in announced if place.algorithm or place.layers), None)
    if plain and said is not None:
        raise InputError(
            said.subject,
            expected="quantised weights",
            found=f"{said.algorithm or 'some'} announced, and every matrix in a model's dtype",
            todo="take description and weights from one save; remove the description if these are the full weights",
        )


class _Module:
    """One quantised matrix under examination."""

    def __init__(
        self, subject: str, module: str, shape: tuple[int, ...], fmt: Format, beside: Mapping[str, TensorRef]
    ) -> None:
        self._subject, self._module, self._shape, self._format, self._beside = subject, module, shape, fmt, beside

    def tensor(self, dtype: str, read: Callable[[TensorRef], np.ndarray[Any, Any]]) -> QuantisedTensor:
        """It, its header and the numbers for the whole of it checked."""
        fmt = self._format
        if self._shape[1] % fmt.block:
            expected = f"columns in whole blocks of {fmt.block}, as {fmt.name} has them"
            raise self._fault(fmt.pieces[0], expected, f"{self._shape[1]} columns by config.json", _AGAIN)
        known = {piece.name for piece in fmt.pieces}
        for piece in (piece for other in FORMATS for piece in other.pieces if piece.name in self._beside):
            if piece.name not in known:
                scales = " and ".join(piece.name for piece in fmt.pieces[1:])
                raise self._fault(piece, f"{scales} alone beside {fmt.name}", f"{piece.name} as well", _AGAIN)
        refs = {piece: self._checked(piece) for piece in fmt.pieces}
        return QuantisedTensor(
            self._module + _WEIGHT,
            dtype,
            self._shape,
            fmt,
            tuple(refs[piece] for piece in fmt.by_rows),
            tuple(self._number(piece, read(refs[piece])) for piece in fmt.whole),
        )

    def _fault(self, piece: Piece, expected: str, found: str, todo: str) -> InputError:
        subject = f"{self._subject}, tensor {f'{self._module}.{piece.name}'!r}"
        return InputError(subject, expected=expected, found=found, todo=todo)

    def _checked(self, piece: Piece) -> TensorRef:
        ref, fmt, shape = self._beside.get(piece.name), self._format, piece.shape(self._shape)
        if ref is None:
            expected = f"it beside the {fmt.name} matrix {self._module + _WEIGHT!r}"
            raise self._fault(piece, expected, "no such tensor", _AGAIN)
        if ref.dtype != piece.dtype:
            raise self._fault(piece, f"dtype {piece.dtype}, as {fmt.name} has it", ref.dtype, _AGAIN)
        if ref.shape != shape and not (piece.every is None and ref.shape == (1,)):
            half = 2 * int(np.prod(ref.shape)) == int(np.prod(shape)) and piece is not fmt.pieces[0]
            found = f"{list(ref.shape)}{', half of it' if half else ''}"
            expected = f"shape {list(shape)} of {fmt.name} for {list(self._shape)} by config.json"
            raise self._fault(piece, expected, found, _HALF if half else _AGAIN)
        return ref

    def _number(self, piece: Piece, stored: np.ndarray[Any, Any]) -> np.float32:
        number = np.float32(stored.reshape(-1)[0])
        if not (np.isfinite(number) and number > 0):
            raise self._fault(piece, "a positive number", f"{number:.2g}", _AGAIN)
        if float(number) * self._format.bound > float(np.finfo(np.float32).max):
            most = f"at most {np.finfo(np.float32).max / self._format.bound:.2g}, or its products overflow float32"
            raise self._fault(piece, most, f"{number:.2g}", _AGAIN)
        return number


def told(subject: str, found: Dequantised) -> list[str]:
    """What a user should know of a checkpoint with quantised matrices, and of scales that are read past."""
    counts = " and ".join(f"{count} matrices in {name}" for name, count in found.counts().items())
    notes = [f"{subject}: {counts} are read by dequantising"] if counts else []
    if past := found.read_past:
        what = f"{len(past)} scales of activations and caches ({past[0]}, …)"
        notes.append(f"{subject}: {what} are not used: engines keep both in the export's precision")
    return notes
