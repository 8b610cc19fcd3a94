"""The 12B shape through the compile, without its weights: seconds, memory and sizes of every stage.

    PYTHONPATH=tests python tests/bench/compile_12b.py [--ops native|plugin] [--max-context 8192] [--budget 12b]
        [--system-allocator]

Run it on an idle machine: the build process takes one processor, and the figures are wall time.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from elastic_export.checkpoint.budgets import select_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.dtypes import DTYPES
from elastic_export.emit import emit_model
from elastic_export.emit.emit import EmittedModel
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.engine.rtx import TensorRTRTX
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.ops.plugins import creators_of, plugins_of
from elastic_export.passes import budget_passes, run_passes
from elastic_export.plan.activation import activation_bounds
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_runtime.format.digest import file_digest
from synthetic import BUDGETS_12B, NANO_12B, write_sparse_checkpoint


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_sparse_checkpoint(place / "12b", NANO_12B, BUDGETS_12B)
        checkpoint = Checkpoint.open(place / "12b")
        start = time.perf_counter()
        plan = plan_job(checkpoint, ExportOptions("all", "rtx5080", place / "out"), demo=False)
        print(f"open and plan             {time.perf_counter() - start:6.1f} s")
        print(plan.table())
        models = _emit_all(checkpoint, place)
        print(f"resident memory so far    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:6.2f} GB")
        _build(models[arguments.budget], arguments, place)


def _emit_all(checkpoint: Checkpoint, place: Path) -> dict[str, EmittedModel]:
    begin = start = time.perf_counter()
    parent, arch = trace_parent(checkpoint.architecture, checkpoint.prefix), checkpoint.architecture
    print(f"trace                     {time.perf_counter() - start:6.1f} s")
    stored, models = dict.fromkeys(facts_of(parent).tensors(), DTYPES["bf16"].ir), {}
    for budget in select_budgets(checkpoint.budgets, "all"):
        start = time.perf_counter()
        graph = clone_with_facts(parent)
        masks = {name: mask.numpy() for name, mask in budget_masks(arch, budget).items()}
        run_passes(graph, budget_passes(masks, DTYPES["bf16"].ir, stored))
        model = budget.architecture(arch)
        models[budget.name] = emit_model(graph, model, place / f"{budget.name}.onnx", precision="bf16")
        taken = time.perf_counter() - start
        print(f"passes and onnx of {budget.name:<6} {taken:6.1f} s  {model.parameters():,} parameters")
    print(f"trace and all passes      {time.perf_counter() - begin:6.1f} s")
    return models


def _build(model: EmittedModel, arguments: argparse.Namespace, place: Path) -> None:
    sizes = {"max_tokens": arguments.max_tokens, "max_context": arguments.max_context, "max_batch": 1}
    plugins = plugins_of(arguments.ops, model.ops, model.architecture, "bf16")
    bounds = activation_bounds(model.architecture, "bf16", arguments.ops, **sizes)
    request = EngineRequest(
        onnx=model.path,
        output=place / "sm120.engine",
        compute_capabilities=("SM120",),
        precision="bf16",
        ops=arguments.ops,
        ports=model.ports,
        outputs=(model.logits,),
        weights=model.weights,
        plugin_ops=plugins,
        plugin_creators=creators_of(plugins),
        activation_limits=bounds,
        **sizes,
    )
    if arguments.system_allocator:
        TensorRTRTX.preloads = lambda product: ()
    start = time.perf_counter()
    facts = build_engine(request)
    decode, prefill = (count / 1e6 for count in facts.activation_bytes)
    print(
        f"engine {arguments.budget} {arguments.ops} at {arguments.max_context}: {time.perf_counter() - start:.1f} s, "
        f"{facts.size / 1e6:.1f} MB, {facts.peak_rss / 1e9:.2f} GB of memory, activation memory {decode:.1f} MB in "
        f"decode and {prefill:.1f} MB in prefill (bounds {bounds[0] / 1e6:.0f} and {bounds[1] / 1e6:.0f} MB), "
        f"{facts.layers} layers, plugins {dict(facts.plugin_layers)}, SHA-256 {file_digest(request.output)[1][:12]}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", choices=["native", "plugin"], default="native")
    parser.add_argument("--budget", default="12b")
    parser.add_argument("--max-context", type=int, default=8192)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--system-allocator", action="store_true", help="build without the preloaded allocator")
    return parser.parse_args()


if __name__ == "__main__":
    main()
