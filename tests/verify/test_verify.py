"""Budgets side by side: one pass over the parent's weights, and each is judged as if alone."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from elastic_export.layers.budget import Budget
from elastic_export.verify import way, workers
from elastic_export.verify.oracle import Oracle
from elastic_export.verify.shipped import ShippedFile
from elastic_export.verify.verify import Subject, verify_budgets
from elastic_runtime.errors import InputError
from elastic_runtime.ort.weight_source import Held


@pytest.fixture(scope="module")
def subjects(compiled: Any) -> list[Subject]:
    """A budget, the whole parent, and the budget with a fault in its last layer."""
    model = compiled("bf16")
    full = replace(model, budget=Budget.full(model.arch, "full"))
    faulty = onnx.load(model.emitted.path)
    relu = next(node for node in faulty.graph.node if node.op_type == "Relu")
    relu.op_type = "Identity"
    files = [(model, model.emitted), (full, full.compile("full.onnx")), (model, model.rewritten(faulty))]
    return [Subject(m.budget, e, Held(m.load(m.recipe(e))), m.plan) for m, e in files]


def test_budgets_share_a_pass_and_no_fault(compiled: Any, subjects: list[Subject]) -> None:
    oracle = compiled("bf16").oracle
    together = verify_budgets(oracle, subjects)
    assert [found.passed for found in together] == [True, True, False]
    for found, subject in zip(together, subjects, strict=True):
        [alone] = verify_budgets(oracle, [subject])
        assert found.checks == alone.checks
        assert {name: sketch.tolist() for name, sketch in found.golden.states.items()} == {
            name: sketch.tolist() for name, sketch in alone.golden.states.items()
        }


def test_the_parents_layers_are_read_once_for_all(compiled: Any, subjects: list[Subject]) -> None:
    model, read = compiled("bf16"), Counter[str]()

    def counting(name: str, rows: Any = slice(None)) -> Any:
        read[name] += 1
        return model.oracle._read(name, rows)

    verify_budgets(Oracle(model.arch, counting, model.checkpoint.prefix), subjects)
    assert set(read) == set(model.checkpoint.tensors)
    more = {name: count for name, count in read.items() if count > 1}
    assert more == {"backbone.embeddings.weight": len(subjects)}, "rows of each plan's ids"


@pytest.mark.parametrize("every_token", [False, True])
def test_the_head_in_blocks_is_the_head(compiled: Any, monkeypatch: pytest.MonkeyPatch, every_token: bool) -> None:
    """Rows of the file's matrix too, where logits are of all tokens as well; a fault in the last block shows."""
    model = compiled("bf16", every_token=every_token)
    whole, given = model.verify(model.emitted), list[int]()
    monkeypatch.setattr(way, "_BLOCK", 50 * model.arch.hidden_size)
    run = ShippedFile.head

    def noting(self: ShippedFile, piece: Any, weights: Any) -> None:
        given.append(len(weights["lm_head.weight"]))
        run(self, piece, weights)

    monkeypatch.setattr(ShippedFile, "head", noting)
    blocks = model.verify(model.emitted)
    assert given == [count for count in (50, 50, 31) for _ in ("float32", "rounded")]
    np.testing.assert_allclose(blocks.golden.logits, whole.golden.logits, rtol=1e-5, atol=1e-6)
    assert [check.passed for check in blocks.checks] == [True, True, True]

    def faulty(name: str, array: Any) -> Any:
        return np.concatenate([array[:-2], array[-1:], array[-2:-1]]) if name == "lm_head.weight" else array

    weights = [(name, faulty(name, array)) for name, array in model.load(model.recipe(model.emitted))]
    [found] = verify_budgets(model.oracle, [Subject(model.budget, model.emitted, Held(weights), model.plan)])
    assert [d.tensor for d in found.checks[0].failures] == ["logits"]


def test_side_by_side_is_as_one_after_the_other(
    compiled: Any, subjects: list[Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As models of a thousand channels run: budgets and twins in two threads. The fault is found, a NaN is named."""
    oracle, threads = compiled("bf16").oracle, set[str]()
    alone = verify_budgets(oracle, subjects)
    monkeypatch.setattr(workers, "_WIDE", 1)
    layer = ShippedFile.layer

    def noting(self: ShippedFile, *arguments: Any) -> Any:
        threads.add(threading.current_thread().name)
        return layer(self, *arguments)

    monkeypatch.setattr(ShippedFile, "layer", noting)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = verify_budgets(oracle, subjects)
        assert [found.checks for found in together] == [found.checks for found in alone]
        assert [found.passed for found in together] == [True, True, False]
        assert len(threads) == 2
        assert threading.main_thread().name not in threads
        with pytest.raises(
            InputError, match=r"tensor backbone\.layers\.4\.mixer\.\w+(\.weight)?: expected finite values"
        ):
            verify_budgets(_with_a_nan(compiled("bf16"), 4), subjects)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def _with_a_nan(model: Any, layer: int) -> Oracle:
    def read(name: str, rows: Any = slice(None)) -> Any:
        array = model.oracle._read(name, rows)
        if name.startswith(f"backbone.layers.{layer}.mixer."):
            array = array.copy()
            array.flat[0] = np.nan
        return array

    return Oracle(model.arch, read, model.checkpoint.prefix)
