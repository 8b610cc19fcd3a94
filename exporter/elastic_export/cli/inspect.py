"""`elastic-export inspect`: what a bundle, a checkpoint or a model file holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from elastic_export.checkpoint.budgets import FILE_NAME
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.cli.lenient import lenient_options
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.fit_table import align, parameters, size_text

_ONNX = "name a model.onnx of a bundle"


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@lenient_options
def inspect(path: Path, ignore_tensors: tuple[str, ...], ignore_config: tuple[str, ...]) -> None:
    """Show a bundle, an elastic checkpoint or an ONNX file of ours."""
    if path.suffix == ".onnx":
        lines = _model(path)
    elif (path / "manifest.json").is_file():
        lines = _bundle(path)
    elif (path / "config.json").is_file():
        lines = _checkpoint(path, ignore_tensors, ignore_config)
    else:
        raise InputError(
            str(path),
            expected="a bundle, a checkpoint folder or an .onnx file",
            found="none of them",
            todo="name a folder with manifest.json or config.json in it",
        )
    click.echo("\n".join(lines))


def _bundle(path: Path) -> list[str]:
    manifest = Bundle.open(path).manifest
    rows = [["budget", "params", "layers", "weights", "target", "context", "engine", "activation", "status", "fits"]]
    for budget in manifest.budgets:
        for engine in budget.engines:
            file = manifest.file(engine.file)
            rows.append(
                [
                    *(budget.name, parameters(budget.parameters), str(budget.layers), size_text(budget.weight_bytes)),
                    *(engine.target, str(engine.max_context), size_text(file.size if file else 0)),
                    *(size_text(engine.activation), engine.status.state),
                    {True: "yes", False: "no", None: "-"}[engine.fits.enough],
                ]
            )
    demo = " (demo model)" if manifest.demo else ""
    made = f"{manifest.precision}, weights {manifest.weight_mode}, by {manifest.producer}"
    return [
        f"bundle of {manifest.checkpoint.name}{demo}, {made}",
        *align(rows, left=(0, 4)),
    ]


def _checkpoint(path: Path, ignore_tensors: Sequence[str], ignore_config: Sequence[str]) -> list[str]:
    checkpoint = Checkpoint.open(
        path,
        require_budgets=(path / FILE_NAME).is_file(),
        ignore_tensors=ignore_tensors,
        ignore_config=ignore_config,
    )
    arch = checkpoint.architecture
    rows = [["budget", "params", "layers", "hidden", "head dim", "query heads"]]
    for budget in checkpoint.budgets.values():
        model = budget.architecture(arch)
        rows.append(
            [budget.name, parameters(model.parameters()), str(len(model.pattern)), str(model.hidden_size),
             str(model.mamba_head_dim), str(model.attention_heads)]
        )  # fmt: skip
    return [
        f"checkpoint {checkpoint.name}: {parameters(arch.parameters())} parameters, {len(checkpoint.tensors)} tensors "
        f"in {len(checkpoint.shards)} files, {checkpoint.dtype}",
        f"pattern {arch.pattern}",
        *(align(rows, left=(0,)) if checkpoint.budgets else ["no budgets: write elastic_config.json"]),
        *(f"note: {warning}" for warning in checkpoint.warnings),
    ]


def _model(path: Path) -> list[str]:
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
    return [
        f"opset {', '.join(f'{o.domain or chr(39) * 2} {o.version}' for o in model.opset_import)}, functions "
        f"{[f.name for f in model.functions]}",
        f"{len(model.graph.input)} inputs, {len(model.graph.output)} outputs, {len(model.graph.initializer)} constants",
        *align([["op", "nodes"], *([op, str(count)] for op, count in sorted(ops.items()))], left=(0,)),
    ]
