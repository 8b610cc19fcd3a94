"""Weights in eight bits as TensorRT-RTX builds them: one kernel a product, and no copy of a weight at a call.

Which products it joins is its compiler's choice and has no documentation: most forms beside ours that were tried are
copied or dequantised whole at each call. So the layers of real engines are read, of the 12B's shapes, for each card.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from elastic_export.checkpoint.budgets import parse_budgets
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.engine.build_folder import build_folder, write_processor
from elastic_export.engine.flavour import flavour
from elastic_export.engine.process import build_engine, child_environment, fixed_model
from elastic_export.engine.request import EngineRequest
from elastic_export.graph.facts import Form, clone_with_facts, facts_of
from elastic_export.layers.eight_bits import EightBits
from elastic_export.ops.plugins import creators_of, plugins_of
from elastic_export.passes import budget_passes, run_passes
from elastic_export.plan.activation import activation_bounds, size_bound
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_runtime.errors import InternalError
from elastic_runtime.format.digest import file_digest
from synthetic import BUDGETS_12B, NANO_12B

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("12b int8")]  # one worker traces it
SIZES = {"max_tokens": 256, "max_context": 8192, "max_batch": 1}
CHILD = Path(__file__).with_name("verbose_child.py")
_LAYER = re.compile(r"LayerType: (\w+), Inputs: \[(.*?)\], (?:Constants: .*?, )?Outputs: \[(.*?)\], Tactic")
#: Names of the second profile's bindings say so.
_TENSOR = re.compile(r"Name: ([^, ]*)(?: \[profile 1\])?, (?:Location: \w+, )?Dimensions: \[([\d,]*)\]")


class Layer(NamedTuple):
    """A kernel of an engine: its type, and names and shapes of what it reads and writes."""

    kind: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


Make = Callable[[str], EmittedModel]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A sub-model of the 12B shape in eight bits, by its name."""
    folder, parent = tmp_path_factory.mktemp("int8"), trace_parent(NANO_12B)
    budgets = parse_budgets(BUDGETS_12B, NANO_12B, "budgets of the 12B shape")[0]
    eight_bits, made = EightBits.of(NANO_12B, budgets.values()), dict[str, EmittedModel]()
    stored = dict.fromkeys(facts_of(parent).tensors(), DTYPES["bf16"].ir)

    def make(name: str) -> EmittedModel:
        if name not in made:
            graph, budget = clone_with_facts(parent), budgets[name]
            masks = {mask: values.numpy() for mask, values in budget_masks(NANO_12B, budget).items()}
            run_passes(graph, budget_passes(masks, DTYPES["bf16"].ir, stored, eight_bits=eight_bits))
            model = budget.architecture(NANO_12B)
            made[name] = emit_model(graph, model, folder / f"{name}.onnx", precision="bf16")
        return made[name]

    return make


def request(model: EmittedModel, output: Path, *capabilities: str) -> EngineRequest:
    plugins = plugins_of("plugin", model.ops)
    return EngineRequest(
        onnx=model.path,
        output=output,
        compute_capabilities=capabilities,
        precision="bf16",
        ops="plugin",
        ports=model.ports,
        outputs=(model.logits,),
        weights=model.weights,
        dequantised=model.dequantised,
        plugin_ops=plugins,
        plugin_creators=creators_of(plugins),
        activation_limits=activation_bounds(model.architecture, "bf16", "plugin", **SIZES),
        size_limit=size_bound(model.architecture, len(capabilities), 1),
        **SIZES,
    )


def layers_of(asked: EngineRequest) -> Iterator[Layer]:
    """The kernels of both profiles, as a verbose build lists them at its end."""
    with build_folder(asked, fixed_model(asked)) as place:
        write_processor(place.folder, None)
        environment = child_environment(os.environ, flavour(asked.flavour).preloads())
        command = [sys.executable, "-B", str(CHILD)]
        done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for line in done.stdout.rpartition("\nLayers:\n")[2].splitlines():
        if found := _LAYER.search(line):
            tensors = ({n: _shape(d) for n, d in _TENSOR.findall(text)} for text in found.groups()[1:])
            yield Layer(found[1], *tensors)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


@pytest.mark.parametrize("capability", ["SM86", "SM89", "SM120"])
@pytest.mark.parametrize("budget", ["12b", "9b", "6b"])
def test_no_weight_is_copied_at_a_call(model_of: Make, tmp_path: Path, budget: str, capability: str) -> None:
    model = model_of(budget)
    layers = list(layers_of(request(model, tmp_path / "x.engine", capability)))
    turned = {n: w.shape for n, w in model.weight_sources.items() if w.form == Form.EIGHT_BITS_TRANSPOSED}
    products = [layer for layer in layers if turned.keys() & layer.inputs.keys()]
    # Each once in decode and once in prefill, by a kernel that reads it as int8 and activations, and gives no matrix.
    assert len(products) == 2 * len(turned)
    assert {layer.kind for layer in products} == {"runtime_fusion"}
    copied = {shape for weight in turned.values() for shape in (weight, weight[::-1])}
    written = [(layer.kind, shape) for layer in layers for shape in layer.outputs.values() if shape in copied]
    assert written == []


def test_one_engine_for_all_cards(model_of: Make, tmp_path: Path) -> None:
    """Scratch in decode is a workspace and nothing else; the same bytes again."""
    model, all_cards = model_of("12b"), ("SM86", "SM89", "SM120")
    facts = [build_engine(request(model, tmp_path / f"{n}.engine", *all_cards)) for n in range(2)]
    assert facts[0].activation_bytes[0] <= 10e6
    assert facts[0].activation_bytes[1] <= 219e6  # bf16's
    assert facts[0].size <= 64 << 20
    if not any(fact.chances for fact in facts):
        assert file_digest(tmp_path / "0.engine") == file_digest(tmp_path / "1.engine")


def test_layers_that_are_not_there_stop_a_build(model_of: Make, tmp_path: Path) -> None:
    asked = request(model_of("6b"), tmp_path / "x.engine", "SM120")
    with pytest.raises(InternalError, match="layers of the network: expected 102 that dequantise a weight each, found"):
        build_engine(replace(asked, dequantised=102))
    assert not (tmp_path / "x.engine").exists()
