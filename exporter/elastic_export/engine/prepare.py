"""From the plan and an ONNX file to the request that a build process gets."""

from __future__ import annotations

from pathlib import Path

from elastic_export.emit import ModelFile
from elastic_export.engine.request import EngineRequest
from elastic_export.ops.plugins import creators_of, mode_of, plugins_of
from elastic_export.plan.activation import activation_bounds, size_bound
from elastic_export.plan.engine_jobs import EngineJob
from elastic_export.plan.job import ExportJob


def engine_request(job: ExportJob, model: ModelFile, engine: EngineJob, output: Path) -> EngineRequest:
    """What to build of a sub-model's file, and within which bounds; `output` is the engine's file."""
    options = job.options
    inputs = () if options.weights == "embedded" else model.weights
    plugins = plugins_of(engine.ops, model.ops, model.architecture, job.precision)
    ops = mode_of(plugins)
    return EngineRequest(
        onnx=model.path,
        output=output,
        compute_capabilities=engine.capabilities,
        precision=job.precision,
        max_tokens=options.max_tokens,
        max_context=engine.max_context,
        max_batch=options.max_batch,
        ops=ops,
        ports=model.ports,
        outputs=(model.logits,),
        weights=inputs,
        dequantised=model.dequantised,
        plugin_ops=plugins,
        plugin_creators=creators_of(plugins),
        plugin_library=engine.library.path if engine.library is not None and plugins else None,
        activation_limits=activation_bounds(
            model.architecture,
            job.precision,
            ops,
            max_tokens=options.max_tokens,
            max_context=engine.max_context,
            max_batch=options.max_batch,
            every_token=job.every_token,
            product=job.product,
        ),
        # Without weights inside an engine is code, of a size that can be told; with them it is as large as they are.
        size_limit=size_bound(model.architecture, len(engine.capabilities), options.max_batch) if inputs else None,
        allow_oversize=options.allow_oversize,
        flavour=job.product.name,
    )
