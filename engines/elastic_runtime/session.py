"""A session: token ids in, logits out, states kept between calls, however the ids are cut into calls."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend, Floats, Ints
from elastic_runtime.errors import InputError


class Session:
    """Sequences on a backend, one a row. Rows advance independently.

    A row that is done is retired: it then costs nothing and limits nobody, until `reset`.

    Args:
        backend: runs the model; the session closes it.
        batch: rows.

    Raises:
        InputError: a batch that the backend does not take.
    """

    def __init__(self, backend: Backend, *, batch: int = 1) -> None:
        self.backend = backend
        self.reset(batch)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def batch(self) -> int:
        """Rows."""
        return len(self.tokens)

    @property
    def room(self) -> tuple[int, ...]:
        """How many tokens each row still takes."""
        return tuple(self.backend.max_context - len(row) for row in self.tokens)

    def reset(self, batch: int | None = None) -> None:
        """Begin new sequences: all states zero, all positions 0."""
        batch = self.batch if batch is None else batch
        if not 1 <= batch <= self.backend.max_batch:
            raise InputError("batch", expected=f"1 to {self.backend.max_batch}", found=str(batch))
        self.tokens: list[list[int]] = [[] for _ in range(batch)]  # what each row was fed: the transcript
        self._retired = [False] * batch
        self._one = np.ones(batch, np.int64)
        self.backend.start(batch)

    def retire(self, row: int) -> None:
        """Give up a row: its states are lost, and the others may fill their context without it."""
        self._retired[row] = True

    def prefill(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Append tokens to each row (none to some), in pieces of at most max_tokens.

        Args:
            rows: token ids, one sequence a row, at least one id in all.

        Returns:
            Logits float32 [B, V] after the last token of each row; zeros for rows that were given none.

        Raises:
            InputError: ids outside of the vocabulary, more tokens than the context takes, a retired row, no ids at all.
        """
        ids = self._checked(rows)
        logits = np.zeros((self.batch, self.backend.vocab_size), np.float32)
        done = np.zeros(self.batch, np.int64)
        total = np.array([len(row) for row in ids], np.int64)
        while (left := total - done).any():
            tokens, position = self._piece(left), self._position()
            length = np.minimum(left, tokens)
            piece = np.zeros((self.batch, tokens), np.int64)
            for row, (start, count) in enumerate(zip(done, length, strict=True)):
                piece[row, :count] = ids[row][start : start + count]
            found = self.backend.call(piece, position, length)
            logits[length > 0] = found[length > 0]  # of a row that goes on, the next piece overwrites them
            self._advance(piece, length)
            done += length
        return logits

    def decode(self, ids: Sequence[int]) -> Floats:
        """Append one token to every row -> logits [B, V]. The result is valid until the next call."""
        position = self._position()
        tokens = np.asarray(ids, np.int64)
        if tokens.shape != (self.batch,) or any(self._retired):
            raise InputError("decode", expected=f"one id for each of {self.batch} live rows", found=str(list(ids)))
        self._check_ids(tokens, 0)
        self._check_room(1, int(position.max()) + 1)
        logits = self.backend.call(tokens[:, None], position, self._one)
        for row, token in zip(self.tokens, ids, strict=True):
            row.append(int(token))
        return logits

    def close(self) -> None:
        """Give the backend's memory back."""
        self.backend.close()

    def _position(self) -> Ints:
        """[B]; a retired row stands at 0, where whatever the padding writes harms nobody."""
        return np.array([0 if r else len(t) for t, r in zip(self.tokens, self._retired, strict=True)], np.int64)

    def _piece(self, left: Ints) -> int:
        """T of the next call: position + T must not pass the context in any row, be it idle."""
        room = self.backend.max_context - int(self._position().max())
        if room < 1:
            raise InputError(
                "batch",
                expected="room in every row, or full rows retired",
                found="a full row beside one that is fed",
                todo="retire rows that are done",
            )
        return min(self.backend.max_tokens, int(left.max()), room)

    def _advance(self, piece: Ints, length: Ints) -> None:
        for row, count in enumerate(length):
            self.tokens[row].extend(piece[row, :count].tolist())

    def _checked(self, rows: Sequence[Sequence[int]]) -> list[Ints]:
        if len(rows) != self.batch:
            raise InputError("prefill", expected=f"ids for {self.batch} rows", found=f"{len(rows)} rows")
        ids = [_integers(row, number) for number, row in enumerate(rows)]
        if not any(len(row) for row in ids):
            raise InputError("prompt", expected="at least one token", found="none")
        for number, row in enumerate(ids):
            self._check_ids(row, number)
            if len(row) and self._retired[number]:
                raise InputError(f"row {number}", expected="a live row", found="one that was retired")
            self._check_room(len(row), len(self.tokens[number]) + len(row))
        return ids

    def _check_ids(self, ids: Ints, row: int) -> None:
        wrong = ids[(ids < 0) | (ids >= self.backend.vocab_size)]
        if wrong.size:
            where = f"token ids of row {row}" if self.batch > 1 else "token ids"
            raise InputError(where, expected=f"0 to {self.backend.vocab_size - 1}", found=str(int(wrong[0])))

    def _check_room(self, count: int, end: int) -> None:
        if count and end > self.backend.max_context:
            raise InputError(
                "prompt" if end == count else "sequence",
                expected=f"at most {self.backend.max_context} tokens, the context",
                found=f"{end}",
                todo="shorten it, or open the bundle with a larger context",
            )


def _integers(row: Sequence[int], number: int) -> Ints:
    ids: npt.NDArray[np.int64] = np.asarray(row)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise InputError(f"token ids of row {number}", expected="a sequence of integers", found=str(ids.dtype))
    return ids.astype(np.int64)
