"""Must-show 7: one fault in the text of attention's function body, and verification fails, in either form of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from elastic_export.ops.cached_attention import body

NUMBERS = r"float32: .*logits"
ALL = ("bf16", "fp16", "fp32")


def changed(patch: pytest.MonkeyPatch, old: str, new: str, part: str = "_BODY") -> None:
    """One place of the text reads otherwise."""
    text = getattr(body, part)
    assert text.count(old) == 1, old
    patch.setattr(body, part, text.replace(old, new))


def sees_one_row_less(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "LessOrEqual", "Less")


def sees_one_row_more(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "newest = Add (first, tokens)", "own = Add (first, tokens)\n  newest = Add (own, one)")


def forgets_the_position(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "newest = Add (first, tokens)", "own = Add (first, tokens)\n  newest = Sub (own, first)")


def writes_one_row_late(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "key_cache_out =", "late = Add (position, one)\n  key_cache_out =")
    for rows in ("key_rows", "value_rows"):
        changed(patch, f"{rows}, position)", f"{rows}, late)")


def writes_keys_at_the_beginning(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "key_rows, position)", "key_rows)")


def keys_for_values(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "Reshape (value, kv_shape)", "Reshape (key, kv_shape)")


def result_with_its_heads_interleaved(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "y_split = Transpose <perm = [0, 2, 1, 3]>", "y_split = Transpose <perm = [0, 2, 3, 1]>")


def no_scale(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "Mul (q_f, scale_)", "Identity (q_f)", "_EXPLICIT")


def fused_without_scale(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "<scale: float = @scale>", "<scale = 1.0>", "_FUSED")


def sees_everything(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "Where (visible, scores, hidden)", "Identity (scores)", "_EXPLICIT")


def fused_sees_everything(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "value_cache_out, visible)", "value_cache_out)", "_FUSED")


def groups_read_the_next_keys(patch: pytest.MonkeyPatch, to: int) -> None:
    """Query heads dealt out to KV heads in turn, instead of each KV head to its own run of them."""
    old, new = "(copy_1, KV, last, HD)", "(copy_1, last, KV, T, HD)"
    changed(patch, f"stack = Concat <axis = 0> {old}", f"stack = Concat <axis = 0> {new}", "_EXPLICIT")
    changed(
        patch,
        "q_stacked = Reshape (q_scaled, stack)",
        "q_dealt = Reshape (q_scaled, stack)\n  q_turned = Transpose <perm = [0, 2, 1, 3, 4]> (q_dealt)\n"
        "  as_before = Concat <axis = 0> (copy_1, KV, last, HD)\n  q_stacked = Reshape (q_turned, as_before)",
        "_EXPLICIT",
    )


def softmax_of_narrow_scores(patch: pytest.MonkeyPatch, to: int) -> None:
    narrow = f"scores_n = Cast <to = {to}> (scores_seen)\n  scores_w = Cast <to = 1> (scores_n)\n  weights ="
    changed(patch, "weights =", narrow, "_EXPLICIT")
    changed(patch, "<axis = -1> (scores_seen)", "<axis = -1> (scores_w)", "_EXPLICIT")


def softmax_computed_narrow(patch: pytest.MonkeyPatch, to: int) -> None:
    changed(patch, "weights = Softmax <axis = -1> (scores_seen)",
            f"scores_n = Cast <to = {to}> (scores_seen)\n  weights_n = Softmax <axis = -1> (scores_n)\n"
            "  weights = Cast <to = 1> (weights_n)", "_EXPLICIT")  # fmt: skip


def result_rounded_in_between(patch: pytest.MonkeyPatch, to: int) -> None:
    """Before the product with the values, where nothing of the graph is rounded."""
    changed(patch, "(weights_stacked, v_f)", "(weights_w, v_f)", "_EXPLICIT")
    rounded = f"weights_n = Cast <to = {to}> (weights_stacked)\n  weights_w = Cast <to = 1> (weights_n)\n  mixed ="
    changed(patch, "mixed =", rounded, "_EXPLICIT")


#: (fault, what is found, precisions, head size): 16 has a fused kernel, 20 has none.
FAULTS: list[tuple[Any, ...]] = [
    (sees_one_row_less,),
    (sees_one_row_less, NUMBERS, ALL, 20),
    (sees_one_row_more,),
    (forgets_the_position,),
    (writes_one_row_late, r"float32: key_cache\.0|float32: value_cache\.0|error: .*(invalid|exceeds)"),
    (writes_keys_at_the_beginning, r"float32: key_cache\.0"),
    (keys_for_values,),
    (result_with_its_heads_interleaved,),
    (fused_without_scale,),
    (fused_sees_everything, r"float32: .*logits|not finite|error: "),
    (no_scale, NUMBERS, ("bf16",), 20),
    (sees_everything, r"float32: .*logits|not finite|error: ", ("bf16",), 20),
    (groups_read_the_next_keys, NUMBERS, ("bf16",), 20),
    (softmax_of_narrow_scores, r"branch\.1|float32: ", ALL, 20),
    (softmax_computed_narrow, r"branch\.1|float32: |error: model\.onnx", ALL, 20),
    (result_rounded_in_between, r"branch\.1|float32: ", ("bf16", "fp16"), 20),
]


def test_a_fault_in_the_body_is_caught(
    compiled: Any,
    outcome: Any,
    narrow_type: Any,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    expected: str,
    precision: str,
    head_dim: int,
) -> None:
    model = compiled(precision, head_dim=head_dim)
    with monkeypatch.context() as patch:
        fault(patch, narrow_type(precision))
        emitted = model.compile()
    found = outcome(model, emitted)
    assert re.search(expected, found), found
