"""`--debug`: the graph after every pass, as text and as ONNX."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from elastic_export.passes.base import GraphPass


def dump_to(folder: Path) -> Callable[[int, GraphPass, ir.Model], None]:
    """A hook for `run_passes` that writes `NN-PassName.onnx` and `.txt` into a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def dump(step: int, each: GraphPass, model: ir.Model) -> None:
        stem = folder / f"{step:02d}-{each.name}"
        stem.with_suffix(".txt").write_text(f"{model}\n", encoding="utf-8")
        stem.with_suffix(".onnx").write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))

    return dump
