"""What an evaluation takes, counted from what `evaluate` holds and computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from elastic_export.evaluate.evaluate import Subject
from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.runner import TOGETHER, call_tokens
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.axis import shape_of
from elastic_export.plan.fit_table import duration, size_text
from elastic_export.plan.machine import Space
from elastic_export.plan.work import Cost, Rates, Work
from elastic_export.verify.way import head_blocks
from elastic_runtime.errors import BuildError
from elastic_runtime.format.safetensors import itemsize

_PROCESS = 550_000_000  # torch, onnx, a tokenizer and Python
_SIDES = 2  # subjects that go through a layer at a time, see verify/workers.py
_COPIES = 5  # float32 copies of a layer's widest intermediate that live at once
_SCORES = 3  # scores, their masked copy and the softmax
_WIDE = 5  # float64 blocks of logits: two models', the weights, and what is made of two of them
_PAIRED = 4  # more of these blocks where a quantised model goes along, of two tasks at a time
_ROWS = 12  # bytes a weight that comparing rows moves: read, dequantised, widened, squared
_SUMS = 4  # float64 numbers a token and subject


def evaluation_cost(subjects: Sequence[Subject], passage: Passage, *, paired: bool = False) -> Cost:
    """Bytes of anonymous memory at the moment of most, and the work; `paired`: where distances are measured."""
    tokens, together = sum(len(window.ids) for window in passage.windows), TOGETHER * 3 // 2
    context = max(len(window.ids) for window in passage.windows)
    models = [model for model, _ in subjects]
    streams = sum(4 * tokens * model.architecture.hidden_size + 8 * _SUMS * passage.tokens for model in models)
    layers = sum(sorted(_layer(model, min(tokens, together), context) for model in models)[-_SIDES:])
    widest = max((model.architecture for model in models), key=lambda arch: arch.hidden_size)
    rows = max(count for _, count in head_blocks(widest))
    wide = _WIDE + (_SIDES * _PAIRED if paired else 0)
    head = sum(4 * rows * model.architecture.hidden_size for model in models) + 8 * wide * rows * min(tokens, together)
    work = Work()
    for model in models:
        used, passes = weight_elements(model.architecture), max(1, round(tokens / TOGETHER))
        narrow = itemsize(model.dtype)
        work += Work(products=2.0 * tokens * used, moved=float(passes * used * (narrow + 4) + 2 * used * narrow))
        work += Work(moved=float(_ROWS * used)) if paired else Work()
    read = max(weight_bytes(model) for model in models) * (2 if paired else 1)
    return Cost(_PROCESS + streams + max(layers, head), work + Work(read=float(read)))


def weight_elements(arch: Architecture) -> int:
    """All that activations are multiplied with: every weight but the embedding."""
    return arch.parameters() - arch.vocab_size * arch.hidden_size


def weight_bytes(model: SubModel) -> int:
    """The same in bytes as they are stored."""
    return weight_elements(model.architecture) * itemsize(model.dtype)


def _layer(model: SubModel, tokens: int, context: int) -> int:
    """A layer's weights and what it makes of so many tokens."""
    arch, most = model.architecture, 0
    for layer in arch.layers():
        weights = sum(math.prod(shape_of(t.axes, arch, layer.ordinal)) for t in layer.kind.tensors)
        widest = max(arch.size(mask.axis, layer.ordinal) for mask in layer.kind.masks)
        scores = arch.attention_heads * call_tokens(arch, context) * context if layer.kind is ATTENTION else 0
        # In a narrow precision one of them is there twice, wide and narrow: no more than all of them wide. Whoever
        # dequantises them gives float32, and the comparison of rows then holds two matrices: no more than two layers.
        wide = itemsize("fp32" if model.quantisation else model.dtype)
        used = wide * weights + 4 * (_COPIES * tokens * widest + _SCORES * scores)
        most = max(most, used)
    return most


def cost_text(cost: Cost, rates: Rates, memory: Space | None) -> str:
    """Time and memory in a line, beside what there is."""
    free = "" if memory is None else f" of {size_text(memory.free)} free"
    return f"this takes about {duration(rates.seconds(cost.work))} here; {size_text(cost.memory)} of memory{free}"


def check_memory(cost: Cost, memory: Space | None) -> None:
    """Raise BuildError where memory is too short."""
    if memory is None or cost.memory <= memory.free:
        return
    raise BuildError(
        "memory",
        expected=f"about {size_text(cost.memory)} free",
        found=f"{size_text(memory.free)} on {memory.where}",
        todo="name fewer budgets, precisions or --tokens, or use a larger machine; the figures are estimates, and "
        "--allow-short begins all the same",
    )
