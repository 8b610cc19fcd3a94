"""What a session does, step by step, for tests/golden/session.json: with a model that can be predicted.

Its state is the sum and the number of a row's tokens, its logits peak at (sum + number) % vocabulary. Nothing of the
runtime is used here: both runtimes are held to this page.
"""

from __future__ import annotations

from typing import Any

VOCAB, CONTEXT, MAX_TOKENS, MAX_BATCH = 16, 10, 4, 3

Step = dict[str, Any]

CASES: dict[str, tuple[int, list[Step]]] = {
    "a prompt, then another": (1, [
        {"do": "feed", "rows": [[1, 2, 3, 4, 5]]}, {"do": "feed", "rows": [[6]]}, {"do": "feed", "rows": [[0, 1]]},
    ]),
    "the last token of a generation is fed before the next prompt": (1, [
        {"do": "generate", "rows": [[1, 2]], "max_new": 2, "stop_ids": []},
        {"do": "feed", "rows": [[3]]},
    ]),
    "a stop token is pending too": (1, [
        {"do": "generate", "rows": [[1, 2]], "max_new": 5, "stop_ids": [11]},
        {"do": "generate", "rows": [[3]], "max_new": 1, "stop_ids": []},
    ]),
    "generating in two pieces is generating in one": (1, [
        {"do": "generate", "rows": [[1, 2]], "max_new": 3, "stop_ids": []},
        {"do": "generate", "rows": [[]], "max_new": 3, "stop_ids": []},
        {"do": "reset"},
        {"do": "generate", "rows": [[1, 2]], "max_new": 6, "stop_ids": []},
    ]),
    "a row that was fed goes on without a prompt, an empty one cannot": (2, [
        {"do": "generate", "rows": [[], []], "max_new": 1, "stop_ids": []},
        {"do": "feed", "rows": [[1], []]},
        {"do": "generate", "rows": [[], []], "max_new": 1, "stop_ids": []},
        {"do": "generate", "rows": [[], [4]], "max_new": 2, "stop_ids": []},
    ]),
    "reset forgets what was pending": (1, [
        {"do": "generate", "rows": [[1, 2]], "max_new": 1, "stop_ids": []},
        {"do": "reset"},
        {"do": "generate", "rows": [[]], "max_new": 1, "stop_ids": []},
        {"do": "feed", "rows": [[3]]},
    ]),
    "a row given nothing keeps logits and pending token": (2, [
        {"do": "generate", "rows": [[1, 2], [3]], "max_new": 1, "stop_ids": []},
        {"do": "feed", "rows": [[], [5]]},
        {"do": "feed", "rows": [[1], []]},
    ]),
    "a full row does not hinder the others": (3, [
        {"do": "feed", "rows": [[1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [2], []]},
        {"do": "feed", "rows": [[], [2, 2, 2, 2, 2, 2], [3]]},
        {"do": "feed", "rows": [[], [1, 2, 3], [4, 5, 6, 7, 8]]},
    ]),
    "everything is checked before anything is fed": (2, [
        {"do": "feed", "rows": [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [1]]},
        {"do": "feed", "rows": [[1], [2]]},
        {"do": "feed", "rows": [[], [16]]},
        {"do": "feed", "rows": [[], [-1]]},
        {"do": "feed", "rows": [[], []]},
        {"do": "generate", "rows": [[1], [2]], "max_new": 1, "stop_ids": []},
    ]),
    "the context ends a generation, its last token finds no room": (1, [
        {"do": "generate", "rows": [[1, 2, 3, 4, 5, 6, 7]], "max_new": 9, "stop_ids": []},
        {"do": "generate", "rows": [[]], "max_new": 1, "stop_ids": []},
        {"do": "feed", "rows": [[1]]},
    ]),
    "a pending token is of a row that there is": (2, [
        {"do": "set_pending", "row": 1, "token": 5},
        {"do": "set_pending", "row": 2, "token": 5},
        {"do": "set_pending", "row": 2, "token": None},
        {"do": "set_pending", "row": 0, "token": 16},
        {"do": "feed", "rows": [[1], [2]]},
    ]),
    "one token too many, pending ones counted": (1, [
        {"do": "generate", "rows": [[1, 2, 3, 4, 5, 6, 7]], "max_new": 1, "stop_ids": []},
        {"do": "feed", "rows": [[1, 2, 3]]},
        {"do": "feed", "rows": [[1, 2]]},
    ]),
}  # fmt: skip


class RefusedError(Exception):
    """What a runtime's InputError says: subject|expected|found."""


class Rows:
    """A session of that model, in the fewest words."""

    def __init__(self, batch: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(batch)]
        self.pending: list[int | None] = [None] * batch

    def peak(self, row: int) -> int | None:
        """The id of the largest logit; None where the logits are still zero."""
        tokens = self.tokens[row]
        return (sum(tokens) + len(tokens)) % VOCAB if tokens else None

    def feed(self, rows: list[list[int]], go_on: bool = False) -> None:
        """Append ids behind the pending token; `go_on` feeds pending tokens alone as well."""
        self._check_ids(rows)
        fed = [self._after_pending(n, ids, go_on) for n, ids in enumerate(rows)]
        if not any(fed):
            raise RefusedError("prompt|at least one token|none")
        for n, ids in enumerate(fed):
            end = len(self.tokens[n]) + len(ids)
            if ids and end > CONTEXT:
                subject = "sequence" if self.tokens[n] or self.pending[n] is not None else "prompt"
                raise RefusedError(f"{subject}|at most {CONTEXT} tokens, the context|{end}")
        for n, ids in enumerate(fed):
            if ids:
                self.tokens[n] += ids
                self.pending[n] = None

    def generate(self, rows: list[list[int]], max_new: int, stop_ids: list[int]) -> tuple[list[list[int]], list[str]]:
        """Greedy ids of every row and why each ended."""
        for n, ids in enumerate(rows):
            if not ids and not self.tokens[n] and self.pending[n] is None:
                raise RefusedError(f"{'prompt' if len(rows) == 1 else f'prompt {n}'}|at least one token|none")
        if any(rows) or any(p is not None for p in self.pending):
            self.feed(rows, go_on=True)
        made = [list[int]() for _ in rows]
        ends = [self._generate_row(n, made[n], max_new, stop_ids) for n in range(len(rows))]
        return made, ends

    def set_pending(self, row: int, token: int | None) -> None:
        """What is fed first when the row is fed again."""
        if row >= len(self.tokens):
            raise RefusedError(f"row|0 to {len(self.tokens) - 1}|{row}")
        if token is not None:
            self._check_ids([[token] if n == row else [] for n in range(len(self.tokens))])
        self.pending[row] = token

    def _generate_row(self, row: int, made: list[int], max_new: int, stop_ids: list[int]) -> str:
        while True:
            token = self.peak(row)
            assert token is not None
            made.append(token)
            self.pending[row] = token
            if token in stop_ids:
                return "stop_token"
            if len(made) == max_new:
                return "length"
            if len(self.tokens[row]) == CONTEXT:
                return "context"
            self.tokens[row].append(token)

    def _after_pending(self, row: int, ids: list[int], go_on: bool) -> list[int]:
        first = self.pending[row]
        return [first, *ids] if first is not None and (ids or go_on) else ids

    def _check_ids(self, rows: list[list[int]]) -> None:
        for n, ids in enumerate(rows):
            for token in ids:
                if not 0 <= token < VOCAB:
                    where = "token ids" if len(rows) == 1 else f"token ids of row {n}"
                    raise RefusedError(f"{where}|0 to {VOCAB - 1}|{token}")


def _text(ids: list[int], finish: str) -> str:
    """Every id is a word; a stop token is given out without its text."""
    return "".join(f"w{token} " for token in (ids[:-1] if finish == "stop_token" else ids))


def _outcome(rows: Rows, step: Step) -> Step:
    seen: Step = {"error": None}
    try:
        if step["do"] == "feed":
            rows.feed(step["rows"])
        elif step["do"] == "set_pending":
            rows.set_pending(step["row"], step["token"])
        else:
            seen["ids"], seen["finish"] = rows.generate(step["rows"], step["max_new"], step["stop_ids"])
            seen["text"] = [_text(ids, finish) for ids, finish in zip(seen["ids"], seen["finish"], strict=True)]
    except RefusedError as refused:
        seen["error"] = str(refused)
    return seen


def session_cases() -> dict[str, Any]:
    """Every step with what must be seen after it."""
    cases = []
    for name, (batch, steps) in CASES.items():
        rows, seen = Rows(batch), []
        for step in steps:
            if step["do"] == "reset":
                rows = Rows(batch)
            outcome = {} if step["do"] == "reset" else _outcome(rows, step)
            peaks = [rows.peak(n) for n in range(batch)]
            positions = [len(tokens) for tokens in rows.tokens]
            seen.append(step | outcome | {"peaks": peaks, "positions": positions, "pending": list(rows.pending)})
        cases.append({"name": name, "batch": batch, "steps": seen})
    shape = {"vocab": VOCAB, "max_context": CONTEXT, "max_tokens": MAX_TOKENS, "max_batch": MAX_BATCH}
    return {"shape": shape, "cases": cases}
