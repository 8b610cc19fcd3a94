"""`elastic-export inspect`: what a bundle, a checkpoint or a model file holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from elastic_export.checkpoint.budgets import FILE_NAME
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.cli.lenient import lenient_options
from elastic_export.engine.engine_facts import EngineReport
from elastic_export.engine.request import PROFILE_NAMES
from elastic_export.plan.fit_table import align, parameters, size_text, weights_text
from elastic_export.weights.weight_loss import Rounding
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.paths import inside
from elastic_runtime.format.records import decode, encode, show

_LONGEST = 1000  # characters of a text out of a report
_AGAIN = "export the bundle again"
_ONNX = "name a model.onnx of a bundle"


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@lenient_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(path: Path, ignore_tensors: tuple[str, ...], ignore_config: tuple[str, ...], as_json: bool) -> None:
    """Show a bundle, an elastic checkpoint or an ONNX file of ours."""
    if path.suffix == ".onnx":
        lines = _model_text(found := _model(path))
    elif (path / "manifest.json").is_file():
        lines = _bundle_text(found := _bundle(path))
    elif (path / "config.json").is_file():
        lines = _checkpoint_text(found := _checkpoint(path, ignore_tensors, ignore_config))
    else:
        raise InputError(
            str(path),
            expected="a bundle, a checkpoint folder or an .onnx file",
            found="none of them",
            todo="name a folder with manifest.json or config.json in it",
        )
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines))


def _bundle(path: Path) -> dict[str, Any]:
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    return {
        "kind": "bundle",
        "checkpoint": manifest.checkpoint.name,
        "demo": manifest.demo,
        "precision": manifest.precision,
        "weights": manifest.weight_mode,
        "producer": manifest.producer,
        "budgets": [_budget(bundle, budget) for budget in manifest.budgets],
    }


def _budget(bundle: Bundle, budget: BudgetEntry) -> dict[str, Any]:
    report, engines = _report(bundle, budget), []
    built = _builds(budget, report)
    rounding = Rounding.of_report(report, str(budget.report))
    for engine in budget.engines:
        file = bundle.manifest.file(engine.file)
        engines.append(
            {
                "target": engine.target,
                "max_context": engine.max_context,
                "file": engine.file,
                "bytes": file.size if file else 0,
                "activation": engine.activation,
                "status": engine.status.state,
                "fits": engine.fits.enough,
                "build": encode(built.get(engine.file)),
            }
        )
    return {
        "name": budget.name,
        "parameters": budget.parameters,
        "layers": budget.layers,
        "weight_bytes": budget.weight_bytes,
        "quantisation": budget.quantisation,
        "rounding": None if rounding is None else encode(rounding),
        "engines": engines,
    }


def _report(bundle: Bundle, budget: BudgetEntry) -> dict[str, Any]:
    if budget.report is None:
        return {}
    with advised(_AGAIN):
        return read_json(inside(bundle.path, budget.report, budget.report))


def _builds(budget: BudgetEntry, report: Mapping[str, Any]) -> dict[str, EngineReport]:
    """What the budget's report says of its engines, by file; bundles of version 0.1.0 say nothing."""
    with advised(_AGAIN):
        engines, where = report.get("engines", {}), f"{budget.report}: engines"
        if not isinstance(engines, dict):
            raise InputError(where, expected="an object", found=show(engines))
        return {file: decode(EngineReport, engine, f"{where}[{show(file)!r}]") for file, engine in engines.items()}


def _bundle_text(bundle: dict[str, Any]) -> list[str]:
    rows = [["budget", "params", "layers", "weights", "target", "context", "engine", "activation", "status", "fits"]]
    for budget, engine in _engines(bundle):
        rows.append(
            [
                *(budget["name"], parameters(budget["parameters"]), str(budget["layers"])),
                *(weights_text(budget["weight_bytes"], budget["quantisation"]), engine["target"]),
                str(engine["max_context"]),
                *(size_text(engine["bytes"]), size_text(engine["activation"]), engine["status"]),
                {True: "yes", False: "no", None: "-"}[engine["fits"]],
            ]
        )
    demo = " (demo model)" if bundle["demo"] else ""
    made = f"{bundle['precision']}, weights {bundle['weights']}, by {bundle['producer']}"
    return [
        f"bundle of {bundle['checkpoint']}{demo}, {made}",
        *align(rows, left=(0, 4)),
        *_builds_text([engine for _, engine in _engines(bundle)]),
        *_rounding_text(bundle["budgets"]),
    ]


def _builds_text(engines: Sequence[dict[str, Any]]) -> list[str]:
    """What the builder said of each engine; nothing where it is known of none."""
    known = [engine for engine in engines if engine["build"]]
    if not known:
        return []
    rows = [["engine", "builder", "layers", "plugins", "in place", "unused", "decode", "prefill", "same bytes again"]]
    for engine in engines:
        build = engine["build"]
        if not build:  # of a version that did not record it
            rows.append([engine["file"], "not recorded", *("-" for _ in rows[0][2:])])
            continue
        decode_bytes, prefill_bytes = (build["activation_bytes"].get(name, 0) for name in PROFILE_NAMES)
        plugins = ", ".join(f"{count} {op}" for op, count in build["plugin_layers"].items())
        rows.append(
            [
                *(engine["file"], f"{build['flavour']} {build['version']}", str(build["layers"]), plugins or "none"),
                *(f"{len(build['in_place'])} states", ", ".join(build["unused_inputs"]) or "none"),
                *(size_text(decode_bytes), size_text(prefill_bytes), "yes" if build["reproducible"] else "no"),
            ]
        )
    remarks = [f"{engine['file']}: {remark}" for engine in known for remark in engine["build"]["remarks"]]
    cells = [[show(cell, _LONGEST) for cell in row] for row in rows]  # others may have written it: see `show`
    return ["", *align(cells, left=(0, 1, 3)), *(f"note: {show(remark, _LONGEST)}" for remark in remarks)]


def _rounding_text(budgets: Sequence[dict[str, Any]]) -> list[str]:
    """What quantised budgets lost; nothing of bundles of versions that did not record it."""
    found = [(b["name"], decode(Rounding, b["rounding"], b["name"])) for b in budgets if b["rounding"]]
    return ["", *(f"{name}: {rounding.text()}" for name, rounding in found)] if found else []


def _engines(bundle: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(budget, engine) for budget in bundle["budgets"] for engine in budget["engines"]]


def _checkpoint(path: Path, ignore_tensors: Sequence[str], ignore_config: Sequence[str]) -> dict[str, Any]:
    checkpoint = Checkpoint.open(
        path,
        require_budgets=(path / FILE_NAME).is_file(),
        ignore_tensors=ignore_tensors,
        ignore_config=ignore_config,
    )
    arch = checkpoint.architecture
    models = {budget.name: budget.architecture(arch) for budget in checkpoint.budgets.values()}
    return {
        "kind": "checkpoint",
        "name": checkpoint.name,
        "parameters": arch.parameters(),
        "tensors": len(checkpoint.tensors),
        "files": len(checkpoint.shards),
        "dtype": checkpoint.dtype,
        "quantised": dict(checkpoint.formats),
        "pattern": arch.pattern,
        "budgets": [
            {
                "name": name,
                "parameters": model.parameters(),
                "layers": len(model.pattern),
                "hidden_size": model.hidden_size,
                "mamba_head_dim": model.mamba_head_dim,
                "attention_heads": model.attention_heads,
            }
            for name, model in models.items()
        ],
        "warnings": list(checkpoint.warnings),
    }


def _checkpoint_text(checkpoint: dict[str, Any]) -> list[str]:
    rows = [["budget", "params", "layers", "hidden", "head dim", "query heads"]]
    for budget in checkpoint["budgets"]:
        sizes = (budget[name] for name in ("layers", "hidden_size", "mamba_head_dim", "attention_heads"))
        rows.append([budget["name"], parameters(budget["parameters"]), *map(str, sizes)])
    quantised = [f"{count} matrices in {name}" for name, count in checkpoint["quantised"].items()]
    files = "file" if checkpoint["files"] == 1 else "files"
    return [
        f"checkpoint {checkpoint['name']}: {parameters(checkpoint['parameters'])} parameters, {checkpoint['tensors']} "
        f"tensors in {checkpoint['files']} {files}, {', '.join([checkpoint['dtype'], *quantised])}",
        f"pattern {checkpoint['pattern']}",
        *(align(rows, left=(0,)) if checkpoint["budgets"] else ["no budgets: write elastic_config.json"]),
        *(f"note: {warning}" for warning in checkpoint["warnings"]),
    ]


def _model(path: Path) -> dict[str, Any]:
    import onnx  # noqa: PLC0415

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise InputError(
            str(path), expected="an ONNX model", found=str(error).strip() or "something else", todo=_ONNX
        ) from error
    if not model.graph.output or not model.opset_import:  # protobuf takes any bytes that do not contradict it
        raise InputError(str(path), expected="an ONNX model", found="no graph with outputs in it", todo=_ONNX)
    ops = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return {
        "kind": "model",
        "opsets": {opset.domain: opset.version for opset in model.opset_import},
        "functions": [function.name for function in model.functions],
        "inputs": len(model.graph.input),
        "outputs": len(model.graph.output),
        "constants": len(model.graph.initializer),
        "ops": dict(sorted(ops.items())),
    }


def _model_text(model: dict[str, Any]) -> list[str]:
    opsets = ", ".join(f"{domain or chr(39) * 2} {version}" for domain, version in model["opsets"].items())
    return [
        f"opset {opsets}, functions {model['functions']}",
        f"{model['inputs']} inputs, {model['outputs']} outputs, {model['constants']} constants",
        *align([["op", "nodes"], *([op, str(count)] for op, count in model["ops"].items())], left=(0,)),
    ]
