"""The model of random weights that the tests export: the same everywhere, and an exercise for every axis."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.budgets import KEYS
from elastic_export.checkpoint.demo import sums
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.kept import slice_array, sub_model_name, tensor_runs
from random_demo import ARCHITECTURE, BUDGETS, EOS, byte_tokenizer, random_demo, write_demo

DIGEST = "8d7315057076a3c37059b423b209e0df1b5974487b001f087dbb47b5a83a59d4"


def test_it_is_the_same_on_every_machine(tmp_path: Path) -> None:
    """After a change of the recipe set DIGEST anew."""
    assert hashlib.sha256(sums(write_demo(tmp_path / "demo"))).hexdigest() == DIGEST


def test_budgets_exercise_every_key_and_nest(demo: Checkpoint) -> None:
    entries = BUDGETS["budgets"]
    assert list(entries) == ["large", "medium", "small"]
    assert {key for entry in entries.values() for key in entry} == set(KEYS)
    assert isinstance(entries["small"]["intermediate_size"], list)
    assert isinstance(entries["small"]["mamba_num_heads"], list)
    assert demo.warnings == ()
    for budget in demo.budgets.values():
        assert set(budget.architecture(ARCHITECTURE).pattern) == {"M", "-", "*"}


def test_every_layer_matters(demo: Checkpoint, naive_forward: Callable[..., np.ndarray[Any, Any]]) -> None:
    a, ids = demo.architecture, np.frombuffer(b"Every layer matters.", np.uint8)
    for b in demo.budgets.values():
        sub = b.architecture(a)
        weights = {
            str(sub_model_name(n, a, b)): slice_array(demo.read(n), runs).astype(np.float64)
            for n, runs in tensor_runs(a, b).items()
        }
        whole = naive_forward(sub, weights, ids)
        for layer in range(len(sub.pattern)):
            assert np.linalg.norm(naive_forward(sub, weights, ids, layer) - whole) >= 0.05 * np.linalg.norm(whole)


@pytest.fixture(scope="module")
def demo() -> Checkpoint:
    return Checkpoint.open(random_demo())


def test_tokens_are_bytes(demo: Checkpoint) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(demo.path / "tokenizer.json"))
    text = "Grüße, 世界!\n\t\0  €"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.encode("<|eos|>").ids == [EOS]
    assert tokenizer.get_vocab_size() == demo.architecture.vocab_size
    assert len(byte_tokenizer()["model"]["vocab"]) == 256
