"""A session: token ids in, logits out, states kept between calls, however the ids are cut into calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend, DeviceName, Floats, closed
from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.format.records import is_integer, show
from elastic_runtime.hold import Hold
from elastic_runtime.snapshot import Snapshot, check_same
from elastic_runtime.token_ids import Ids, checked_ids


class Session:
    """Sequences on a backend, one a row. Rows advance independently; a full row costs nothing and limits nobody.

    A row may have a *pending* token: one that was given out as its next and not fed yet, as the last token of every
    generation is. It belongs to the sequence, so whatever the row is fed next is fed after it.

    A call that was left in the middle, by Ctrl-C or a card that failed, has moved the states by nobody knows how much:
    the session is not `whole` then, and refuses to go on (InputError) until `reset` or `restore`. Nor is it while a
    call is under way: one thread may use it at a time.

    Args:
        backend: runs the model; the session closes it.
        batch: rows.

    Raises:
        InputError: a batch that the backend does not take.
    """

    def __init__(self, backend: Backend, *, batch: int = 1) -> None:
        self._moves = 0
        self._holder: Callable[[], Hold | None] = lambda: None  # weak: a generation that was left claims nothing
        self.reopen(backend, batch)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ElasticError:
            if error is None:  # a lost card fails here too: what it failed at first is the one to tell
                raise

    @property
    def batch(self) -> int:
        """Rows."""
        return len(self.tokens)

    @property
    def room(self) -> tuple[int, ...]:
        """How many tokens each row still takes, its pending one not counted."""
        return tuple(max(0, self._room(row)) for row in range(self.batch))

    @property
    def logits(self) -> Floats:
        """Logits [B, V] after each row's last token; zeros for one that got none. Valid until the next call."""
        return self._logits

    @property
    def pending(self) -> tuple[int | None, ...]:
        """The token of each row that was given out and not fed yet, None where there is none."""
        return tuple(self._pending.get(row) for row in range(self.batch))

    @property
    def whole(self) -> bool:
        """Whether no call is under way and none was left in the middle: the states are those of `tokens`."""
        return self._whole

    def set_pending(self, row: int, token: int | None) -> None:
        """Say which token comes first when the row is fed again; None: none does. Raises InputError about row or id."""
        if not is_integer(row) or not 0 <= row < self.batch:
            todo = "name a row of the session"
            raise InputError("row", expected=f"0 to {self.batch - 1}", found=show(row), todo=todo)
        if token is None:
            self._pending.pop(row, None)
        else:
            self._pending[row] = self._ids([token], row)[0]

    def reset(self, batch: int | None = None) -> None:
        """Begin new sequences: all states zero, all positions 0, nothing pending."""
        batch = self.batch if batch is None else batch
        if not is_integer(batch) or not 1 <= batch <= self.backend.max_batch:
            raise InputError(
                "batch",
                expected=f"1 to {self.backend.max_batch}",
                found=show(batch),
                todo="take fewer rows, or open the bundle with a larger batch",
            )
        self._moves += 1
        self._whole = False
        self.backend.start(batch)
        self.tokens: list[list[int]] = [[] for _ in range(batch)]  # what each row was fed: the transcript
        self._pending: dict[int, int] = {}
        self._position = np.zeros(batch, np.int64)
        self._one = np.ones(batch, np.int64)
        self._logits: Floats = np.zeros((batch, self.backend.vocab_size), np.float32)
        self._whole = True

    def reopen(self, backend: Backend, batch: int) -> None:
        """Go on with another backend, all states zero: a switch that failed gives the old budget back."""
        self.backend = backend
        self.reset(batch)
        self._closed = False

    def prefill(self, rows: Sequence[Ids]) -> Floats:
        """Append tokens to each row (none to some), behind its pending one, in pieces of at most max_tokens.

        Args:
            rows: token ids, one sequence a row, at least one id in all.

        Returns:
            Logits float32 [B, V] after the last token of each row; a row that is given none keeps those of its last
            call (zeros before its first), and its pending token.

        Raises:
            InputError: ids outside of the vocabulary, more tokens than the context takes, no ids at all; nothing was
                fed then.
        """
        if len(rows) != self.batch:
            raise InputError(
                "prefill",
                expected=f"ids for {self.batch} rows",
                found=f"{len(rows)} rows",
                todo="give every row a list, an empty one where it gets nothing",
            )
        ids = [self._ids(row, number) for number, row in enumerate(rows)]
        if not any(ids):
            raise InputError(
                "prompt", expected="at least one token", found="none", todo="begin with the id that texts begin with"
            )
        for number, row in enumerate(ids):
            if row:
                self._check_room(number, len(row))
        return self._feed([self._after_pending(number, row) for number, row in enumerate(ids)])

    def decode(self, ids: Ids) -> Floats:
        """Append one token to every row -> logits [B, V]. The result is valid until the next call; errors as prefill.

        Rows with a pending token are fed two.
        """
        tokens = self._ids(ids, None)
        if len(tokens) != self.batch:
            raise InputError(
                "decode",
                expected=f"one id for each of {self.batch} rows",
                found=show(tokens),
                todo="give each row one, or use prefill",
            )
        if self._pending:
            return self.prefill([[token] for token in tokens])
        for row in range(len(tokens)):
            self._check_room(row, 1)
        return self._decode(tokens)

    def step(self, rows: Collection[int]) -> Floats:
        """Feed the pending token of these rows, nothing to others -> logits [B, V] as `prefill` gives them.

        Raises:
            InputError: a row without a pending token, or one that is full; nothing was fed then.
        """
        for row in rows:
            if row not in self._pending:
                raise InputError(
                    f"row {row}",
                    expected="a pending token",
                    found="none",
                    todo="set one with set_pending, or leave the row out",
                )
            self._check_room(row, 0)
        ids = [[self._pending[row]] if row in rows else [] for row in range(self.batch)]
        return self._decode([token for (token,) in ids]) if all(ids) else self._feed(ids)

    def snapshot(self, *, device: DeviceName | None = None) -> Snapshot:
        """The session as it stands, to come back to with `restore`.

        Args:
            device: `cpu` for a copy in main memory; None leaves it where the session computes.

        Raises:
            InputError: the session is closed, computes on no such device, or is generating: draws made and text held
                back belong to the iterator.
            BuildError: the card has no room for it; the session stays as it is.
        """
        self._check_whole()
        if (holder := self._holder()) is not None and holder.lasts():
            todo = "run the iterator to its end, or close it"
            raise InputError("snapshot", expected="a session between generations", found="one at work", todo=todo)
        here = self.backend.device
        if device not in (None, "cpu", here):
            todo = "leave it out for a copy beside the states"
            raise InputError("device", expected=" or ".join(sorted({"cpu", here})), found=show(device), todo=todo)
        states = self.backend.save(int(self._position.max()), device or here)
        tokens = tuple(map(tuple, self.tokens))
        return Snapshot(
            self.backend.origin,
            self.backend.name,
            self.backend.max_context,
            tokens,
            self.pending,
            self._logits.copy(),
            states,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Stand again as at a snapshot, of this session or of one like it: what follows is, bit for bit, what would
        have followed then.

        Raises:
            InputError: it is of another bundle, budget, backend, context or batch, or was closed; nothing has changed.
            BuildError: the card failed; the session begins anew.
        """
        check_same(snapshot, self.backend, self.batch)
        before, self._whole = self._whole, False  # until the transcript is that of the states again
        try:
            self.backend.load(snapshot.states)
        except InputError:
            self._whole = before
            raise
        except BaseException:
            self.reset()
            raise
        self._moves += 1
        self.tokens = [list(row) for row in snapshot.tokens]
        self._pending = {row: token for row, token in enumerate(snapshot.pending) if token is not None}
        self._position = np.array([len(row) for row in self.tokens], np.int64)
        self._logits = snapshot.logits.copy()
        self._whole = True

    def hold(self) -> Hold:
        """For a generation that begins: the one before it has lost its hold then. Raises InputError: not `whole`."""
        self._check_whole()
        hold = Hold(self)
        self._holder = weakref.ref(hold)
        return hold

    def holds(self, hold: Hold) -> bool:
        """Whether that generation is the last that began."""
        return self._holder() is hold

    @property
    def moves(self) -> int:
        """A number that changes whenever the states do."""
        return self._moves

    def close(self) -> None:
        """Give the backend's memory back; closing again does nothing."""
        self._closed = True
        self.backend.close()

    def _feed(self, ids: list[list[int]]) -> Floats:
        """Ids that were checked, in as many calls as it takes."""
        self._check_whole()
        self._moves += 1
        self._whole = False
        logits: Floats = self._logits.copy()  # what decode left is the backend's own and changes with a call
        self._logits, done = logits, np.zeros(self.batch, np.int64)
        total = np.array([len(row) for row in ids], np.int64)
        while (left := total - done).any():
            tokens = self._piece(left)
            length = np.minimum(left, tokens)
            piece = np.zeros((self.batch, tokens), np.int64)
            for row, (start, count) in enumerate(zip(done, length, strict=True)):
                piece[row, :count] = ids[row][start : start + count]
            # A full row is fed nothing more: its last cache rows may be overwritten, past the end nothing may be.
            position = np.minimum(self._position, self.backend.max_context - tokens)
            found = self.backend.call(piece, position, length)
            logits[length > 0] = found[length > 0]  # of a row that goes on, the next piece overwrites them
            for row, count in enumerate(length):
                self._advance(row, piece[row, :count].tolist())
            self._position += length
            done += length
        self._whole = True
        return logits

    def _decode(self, tokens: list[int]) -> Floats:
        """One token to every row, as `_feed` in one call."""
        self._check_whole()
        self._moves += 1
        self._whole = False
        self._logits = self.backend.call(np.array(tokens, np.int64)[:, None], self._position, self._one)
        for row, token in enumerate(tokens):
            self._advance(row, [token])
        self._position += 1
        self._whole = True
        return self._logits

    def _check_whole(self) -> None:
        if self._closed:
            raise closed(self.backend.name)
        if not self._whole:
            raise InputError(
                "session",
                expected="no call under way, and none that was left in the middle",
                found="one",
                todo="reset it and feed its tokens again, or restore a snapshot",
            )

    def _piece(self, left: npt.NDArray[np.int64]) -> int:
        """T of the next call: no row that can still grow may be padded past the end of its context."""
        room = self.backend.max_context - self._position
        return self.backend.call_size(int(left.max()), int(room[room > 0].min()))

    def _advance(self, row: int, fed: list[int]) -> None:
        if fed:
            self.tokens[row] += fed
            self._pending.pop(row, None)  # it was the first of them

    def _after_pending(self, row: int, ids: list[int]) -> list[int]:
        return [self._pending[row], *ids] if ids and row in self._pending else ids

    def _room(self, row: int) -> int:
        return self.backend.max_context - len(self.tokens[row]) - (row in self._pending)

    def _check_room(self, row: int, count: int) -> None:
        """Whether the row takes its pending token and `count` more."""
        room = self._room(row)
        if count > room:
            whole = self.backend.max_context - room + count
            raise InputError(
                "prompt" if whole == count else "sequence",
                expected=f"at most {self.backend.max_context} tokens, the context",
                found=f"{whole}",
                todo="shorten it, or open the bundle with a larger context",
            )

    def _ids(self, ids: Ids, row: int | None) -> list[int]:
        """Of that row, or one a row."""
        where = "token ids" if row is None or self.batch == 1 else f"token ids of row {row}"
        return checked_ids(ids, where, self.backend.vocab_size)
