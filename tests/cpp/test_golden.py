"""The golden files are what the Python runtime says today; test_build.py holds C++ to the same files."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.generation import Settings, generate
from elastic_runtime.sampling import Sampler, Sampling
from elastic_runtime.session import Session

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    sys.path.insert(0, str(HERE))
    try:
        return runpy.run_path(str(HERE / "golden_cases.py"))
    finally:
        sys.path.remove(str(HERE))


@pytest.fixture(scope="module")
def made(cases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files: dict[str, str] = cases["all_files"](tmp_path_factory.mktemp("golden"))
    return files


NAMES = [
    "manifest_12b", "manifest_forms", "choose", "forms", "slices", "slices_int8", "sampler", "errors", "session", "eos",
    "call_size", "bounds",
]  # fmt: skip


@pytest.mark.parametrize("name", [f"{name}.json" for name in NAMES])
def test_the_file_is_what_python_says(cases: dict[str, Any], made: dict[str, str], name: str) -> None:
    assert (cases["FOLDER"] / name).read_text("utf-8") == made[name], (
        "run tests/cpp/golden_cases.py and look at the diff"
    )


def test_every_error_case_says_something(cases: dict[str, Any]) -> None:
    groups = json.loads((cases["FOLDER"] / "errors.json").read_text("utf-8"))
    refused = [case for group in groups.values() for case in group["cases"] if case["subject"]]
    assert len(refused) > 100
    assert all(case["expected"] and case["found"] for case in refused)


def test_a_seal_below_the_top_level_is_no_traceback() -> None:
    from elastic_runtime.format.manifest_reader import parse_manifest
    from elastic_runtime.format.seal import EMPTY, seal

    with pytest.raises(InputError, match="the field 'producer'"):
        parse_manifest(seal(f'{{"schema": "elastic-bundle/1", "x": {{"seal": "{EMPTY}"}}}}').encode())


_LOGITS = st.one_of(
    st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),  # many of them equal
    st.lists(st.floats(-60, 60, width=32) | st.just(-np.inf), min_size=1, max_size=40),
    st.lists(st.sampled_from([0.0, -0.0, 1e-45, 1.0, -np.inf]), min_size=1, max_size=40),
)


@given(
    logits=_LOGITS.filter(lambda row: max(row) > -np.inf),
    temperature=st.sampled_from([1e-3, 0.6, 1.0, 30.0]),
    top_k=st.sampled_from([0, 1, 3, 20, 2**63 - 1]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-9]),
    seed=st.integers(0, 2**64 - 1),
)
def test_a_sampler_does_what_the_plain_algorithm_says(
    cases: dict[str, Any], logits: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    rows = [np.array(logits, np.float32)] * 3
    sampler = Sampler(Sampling(temperature, top_k, top_p, seed))
    assert [sampler.sample(row) for row in rows] == cases["reference_sample"](
        rows, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )


class _Summing:
    """The model of golden_sessions.py as a backend."""

    def __init__(self, vocab: int, max_context: int, max_tokens: int, max_batch: int) -> None:
        self.vocab_size, self.max_context, self.max_tokens, self.max_batch = vocab, max_context, max_tokens, max_batch

    def start(self, batch: int) -> None:
        self._sums, self._counts = np.zeros(batch, np.int64), np.zeros(batch, np.int64)

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def call(self, ids: Any, position: Any, length: Any) -> Any:
        assert (position + ids.shape[1] <= self.max_context).all()
        assert (position == self._counts)[length > 0].all()
        real = np.arange(ids.shape[1]) < length[:, None]
        self._sums += (ids * real).sum(1)
        self._counts += length
        peaks = (self._sums + self._counts) % self.vocab_size
        return (np.arange(self.vocab_size) == peaks[:, None]).astype(np.float32) * 2 - 1

    def close(self) -> None: ...


class _Words:
    """A tokenizer of which every id is a word, given out with the next one."""

    def __init__(self) -> None:
        self._held = ""

    def stream(self) -> _Words:
        return _Words()

    def push(self, token: int) -> str:
        given, self._held = self._held, f"w{token} "
        return given

    def finish(self) -> str:
        return self._held


def _take(session: Session, step: dict[str, Any]) -> None:
    if step["do"] == "reset":
        return session.reset()
    if step["do"] == "feed":
        session.prefill(step["rows"])
        return None
    if step["do"] == "set_pending":
        return session.set_pending(step["row"], step["token"])
    settings = Settings(max_new=step["max_new"], stop_ids=tuple(step["stop_ids"]))
    ids: list[list[int | None]] = [[] for _ in step["rows"]]
    finish = ["" for _ in step["rows"]]
    text = ["" for _ in step["rows"]]
    for piece in generate(session, step["rows"], settings, _Words()):
        ids[piece.row].append(piece.id)
        finish[piece.row] = piece.finish or ""
        text[piece.row] += piece.text
    assert (ids, finish, text) == (step["ids"], step["finish"], step["text"])
    return None


CASES = json.loads((HERE.parent / "golden" / "session.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_a_session_takes_these_steps(case: dict[str, Any]) -> None:
    session = Session(_Summing(**CASES["shape"]), batch=case["batch"])
    for number, step in enumerate(case["steps"]):
        error = None
        try:
            _take(session, step)
        except InputError as refused:
            error = f"{refused.subject}|{refused.expected}|{refused.found}"
        assert error == step.get("error"), number
        assert [len(tokens) for tokens in session.tokens] == step["positions"], number
        assert list(session.pending) == step["pending"], number
