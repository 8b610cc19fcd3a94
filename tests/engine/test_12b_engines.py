"""The 12B shape through trace, passes and builder, with no weights and no GPU. Times: tests/bench/compile_12b.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from elastic_export.checkpoint.budgets import parse_budgets
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.ops.plugins import creators_of, plugins_of
from elastic_export.passes import budget_passes, run_passes
from elastic_export.plan.activation import activation_bounds, size_bound
from elastic_export.plan.limits import largest_context
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_runtime.format.interface import OpsMode
from elastic_runtime.format.plugin_libraries import installed_libraries
from synthetic import BUDGETS_12B, NANO_12B

pytestmark = pytest.mark.xdist_group("12b")  # one worker traces it
SIZES = {"max_tokens": 256, "max_context": 8192, "max_batch": 1}
LONG = {"max_tokens": 1024, "max_context": 131072, "max_batch": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EmittedModel]:
    """The three sub-models of the 12B shape as ONNX files."""
    folder = tmp_path_factory.mktemp("12b")
    parent = trace_parent(NANO_12B)
    budgets = parse_budgets(BUDGETS_12B, NANO_12B, "budgets of the 12B shape")[0]
    stored, emitted = dict.fromkeys(facts_of(parent).tensors(), DTYPES["bf16"].ir), {}
    for name, budget in budgets.items():
        graph = clone_with_facts(parent)
        masks = {mask: values.numpy() for mask, values in budget_masks(NANO_12B, budget).items()}
        run_passes(graph, budget_passes(masks, DTYPES["bf16"].ir, stored))
        emitted[name] = emit_model(graph, budget.architecture(NANO_12B), folder / f"{name}.onnx", precision="bf16")
    return emitted


def request(
    model: EmittedModel, output: Path, ops: OpsMode, sizes: Mapping[str, int] = MappingProxyType(SIZES)
) -> EngineRequest:
    plugins = plugins_of(ops, model.ops, model.architecture, "bf16")
    return EngineRequest(
        onnx=model.path,
        output=output,
        compute_capabilities=("SM120",),
        precision="bf16",
        ops=ops,
        ports=model.ports,
        outputs=(model.logits,),
        weights=model.weights,
        plugin_ops=plugins,
        plugin_creators=creators_of(plugins),
        activation_limits=activation_bounds(model.architecture, "bf16", ops, **sizes),
        size_limit=size_bound(model.architecture, 1, 1),
        **sizes,
    )


def test_parameters_are_those_of_the_published_shape(models: dict[str, EmittedModel]) -> None:
    assert models["12b"].architecture.parameters() == 12_310_001_152
    assert len(models["12b"].weights) == 369
    assert models["9b"].architecture.parameters() == 9_063_866_016


@pytest.mark.parametrize("budget", ["12b", pytest.param("6b", marks=pytest.mark.slow)])
def test_plugin_engine(models: dict[str, EmittedModel], tmp_path: Path, budget: str) -> None:
    facts = build_engine(request(models[budget], tmp_path / "x.engine", "plugin"))
    assert facts.plugin_layers == dict(models[budget].ops)
    assert facts.size <= 64 << 20
    assert facts.peak_rss <= 1 << 30
    assert facts.activation_bytes[0] <= 30e6
    assert facts.activation_peak <= 100e6


def test_plugin_engine_of_a_long_context(models: dict[str, EmittedModel], tmp_path: Path) -> None:
    """A cache of 131072 rows takes no more scratch than one of 8192, which no native engine would build over."""
    facts = build_engine(request(models["12b"], tmp_path / "x.engine", "plugin", LONG))
    assert facts.plugin_layers == {"Mamba2Mixer": 28, "CachedAttention": 6}
    assert len(facts.in_place) == 28 + 2 * 6
    assert facts.size <= 64 << 20
    assert facts.peak_rss <= 1 << 30
    assert facts.activation_peak <= 400e6
    shorter = build_engine(request(models["12b"], tmp_path / "y.engine", "plugin", LONG | {"max_context": 8192}))
    assert shorter.activation_bytes == facts.activation_bytes
    most = largest_context(models["12b"].architecture, "bf16", "native")
    assert most is not None
    assert most < LONG["max_context"]


def test_plugin_engine_that_carries_its_library(models: dict[str, EmittedModel], tmp_path: Path) -> None:
    """Built by the library's own creators, with the facts of the one that the Python declarations build."""
    installed = installed_libraries()
    if installed is None or (library := installed.smallest(["12.0"])) is None:
        pytest.skip("elastic-plugins is not installed, or holds no library for SM120")
    bare = request(models["12b"], tmp_path / "bare.engine", "plugin")
    facts = [build_engine(bare)]
    facts += [build_engine(replace(bare, output=tmp_path / "x.engine", plugin_library=installed.checked(library)))]
    assert facts[1].size - facts[0].size - library.size in range(64)
    assert replace(facts[1], size=0, seconds=0, peak_rss=0) == replace(facts[0], size=0, seconds=0, peak_rss=0)


@pytest.mark.slow
def test_native_engine(models: dict[str, EmittedModel], tmp_path: Path) -> None:
    facts = build_engine(request(models["12b"], tmp_path / "x.engine", "native"))
    assert facts.plugin_layers == {}
    assert facts.size <= 64 << 20
    assert facts.peak_rss <= 2 << 30
    assert facts.activation_bytes[0] <= 30e6
    assert facts.activation_peak <= 300e6
