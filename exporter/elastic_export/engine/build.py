"""Declare plugins, parse, check, build: the body of the build process, in the order it happens."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_export.engine.build_folder import write_file
from elastic_export.engine.checks import check_activation, check_network, check_size, describe, in_place_states
from elastic_export.engine.engine_facts import (
    STAYS_LINE,
    EngineFacts,
    LogLine,
    activation_bytes,
    errors,
    unused_inputs,
)
from elastic_export.engine.flavour import Flavour, flavour
from elastic_export.engine.request import EngineRequest, profiles
from elastic_export.products import product_of
from elastic_runtime.errors import BuildError, InputError, InternalError

#: Warnings that say nothing new: the interface is int64 on purpose, unused inputs have a check of their own, and the
#: names inside a function body repeat wherever it is inlined.
EXPECTED_WARNINGS = ("Int64 binding", "Unused Input", "already exists, the output tensors of this new instance")

#: Where TensorRT gave up and the reason is its own.
OTHERWISE = (
    "try --ops native or smaller --max-tokens, --max-batch or --max-context, and report it if none of these helps"
)


@dataclass(frozen=True)
class ProcessFacts:
    """What the process knows of itself when the engine is done: see the fields of `EngineFacts`."""

    peak_rss: int
    chances: tuple[str, ...]


def compile_engine(
    request: EngineRequest, model: bytes, log: Callable[[LogLine], None], process: Callable[[], ProcessFacts]
) -> EngineFacts:
    """Build the engine of `request` from the model's bytes and write it to `request.output`.

    `log` receives every message as it is said, so that an abort leaves the last words behind.

    Raises:
        InputError, BuildError: what the parser, a check or the builder refused.
    """
    started = time.perf_counter()  # with the import of TensorRT, which is part of what a build takes
    product = flavour(request.flavour)
    trt, lines = load(product), list[LogLine]()

    def hear(line: LogLine) -> None:
        lines.append(line)
        log(line)

    logger = make_logger(trt, hear)
    # Before parsing: the parser asks the registry for each function node, and inlines what it does not find there.
    creators = make_creators(trt, request.plugin_creators if request.ops == "plugin" else {})
    if request.plugin_library is None:
        register_plugins(trt, creators)
    else:
        load_plugins(trt, request.plugin_library, creators)
    with tensorrt_step("the builder"):
        builder = trt.Builder(logger)
    builder.max_threads = 1  # more would make the bytes depend on who comes first
    network = parse(trt, builder, logger, request, model)
    from_library = creators if request.plugin_library is not None else {}
    facts = describe(trt, network, {op: creator.shared_input for op, creator in from_library.items()})
    check_network(request, facts, unused_inputs(lines))  # before the build, which takes most of the time
    config = configure(trt, builder, request)
    product.set_target(trt, config, request.compute_capabilities)
    with tensorrt_step("the engine"):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError("the engine", expected="to be built", found=_why(lines), todo=OTHERWISE)
    check_answers(creators)
    # Before the file is written: an engine that is refused leaves nothing behind.
    oversize = (
        *check_activation(request, activation_bytes(lines)),
        *check_size(request, plan.nbytes - carried_bytes(request)),
    )
    write_file(request.output, plan)
    del creators  # the registry borrows them: they had to live until the plan was made
    own = process()
    return EngineFacts(
        size=plan.nbytes,
        seconds=round(time.perf_counter() - started, 3),
        peak_rss=own.peak_rss,
        activation_bytes=activation_bytes(lines),
        plugin_layers=dict(facts.plugins),
        in_place=in_place_states(request, facts),
        layers=facts.layers,
        unused_inputs=tuple(dict.fromkeys(unused_inputs(lines))),
        flavour=request.flavour,
        version=str(trt.__version__),
        chances=own.chances,
        oversize=oversize,
        warnings=warnings(lines),
    )


def load(product: Flavour) -> Any:
    """The product's module.

    Raises:
        BuildError: it is installed and does not load.
    """
    try:
        return product.module()
    except Exception as error:  # its own initialisation may raise anything
        found = f"{type(error).__name__}: {error}"
        raise BuildError(
            f"the package {product.name}", expected="it to load", found=found, todo="install it again"
        ) from error


@contextmanager
def tensorrt_step(what: str) -> Iterator[None]:
    """Around a call of TensorRT: what its bindings raise of themselves is its failure, not a fault of ours.

    They raise RuntimeError for a C++ exception, and TypeError for an object that could not be made.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if isinstance(error, TypeError) and "returned nullptr" not in str(error):
            raise  # called with the wrong arguments
        found = f"{type(error).__name__}: {error}"
        raise BuildError(
            what,
            expected="TensorRT to make or to read it",
            found=found,
            todo=f"see `elastic-export doctor`, {OTHERWISE}",
        ) from error


def make_logger(trt: Any, log: Callable[[LogLine], None]) -> Any:
    """A TensorRT logger that hands on every message but the verbose ones."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class is only known at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity.name != "VERBOSE":
                log(LogLine(severity.name, text))

    return Logger()


def parse(trt: Any, builder: Any, logger: Any, request: EngineRequest, model: bytes) -> Any:
    """The strongly typed network of the model.

    Raises:
        BuildError: with the parser's own words and the node they are about.
    """
    # Strongly typed: the graph says what is computed in which precision, and the builder may not choose a narrower one.
    with tensorrt_step("the parser"):
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)
    if request.ops == "plugin":
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
    with tensorrt_step(request.onnx.name):  # the path says where external data lies, not what is parsed
        accepted = parser.parse(model, str(request.onnx))
    if not accepted:
        found = "; ".join(_parser_error(parser.get_error(i)) for i in range(parser.num_errors))
        raise BuildError(
            request.onnx.name,
            expected="a model TensorRT's parser accepts",
            found=found or "a refusal",
            todo=f"{product_of(request.flavour).install()}; if that is what you have, report this",
        )
    return network


def configure(trt: Any, builder: Any, request: EngineRequest) -> Any:
    """The builder config: no TF32, no memory but the caller's, both profiles, aliased plugin outputs where there are
    plugins.
    """
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; FP32 means FP32
    if request.plugin_library is not None:
        # The engine then holds the library, and TensorRT loads it with the engine. Not with VERSION_COMPATIBLE, where
        # the builder wants a lean runtime, which the wheel lacks.
        config.plugins_to_serialize = [library_name(request.plugin_library)]
    # TensorRT for RTX's own. Its release notes (1.2): required where a run is recorded as a CUDA graph, as decode is.
    if user_allocation := trt.BuilderFlag.__members__.get("REQUIRE_USER_ALLOCATION"):
        config.set_flag(user_allocation)
    if request.ops == "plugin":
        # Under this preview feature alone may a plugin write a state into the buffer that it reads it from.
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
    for spans in profiles(request):
        profile = builder.create_optimization_profile()
        for name, (low, preferred, high) in spans.items():
            profile.set_shape(name, low, preferred, high)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(
                "optimisation profile", expected="to be accepted", found=f"a refusal of {spans}", todo=OTHERWISE
            )
    return config


def warnings(lines: Sequence[LogLine]) -> tuple[str, ...]:
    """The builder's own warnings, once each, a line each; not that an input stays which, as the parser said and the
    report says, nothing reads.
    """
    unused = unused_inputs(lines)
    said = (" ".join(line.text.split()) for line in lines if line.severity == "WARNING")
    news = (text for text in said if not any(known in text for known in EXPECTED_WARNINGS))
    return tuple(dict.fromkeys(t for t in news if (stays := STAYS_LINE.search(t)) is None or stays[1] not in unused))


def _parser_error(error: Any) -> str:
    return f"node {error.node()} {error.node_operator()} {error.node_name()}".rstrip() + f": {error.desc()}"


def _why(lines: list[LogLine]) -> str:
    said = errors(lines)
    return said[-1][:600] if said else "none, and the builder gave no reason"


def make_creators(trt: Any, entries: Mapping[str, str]) -> dict[str, Any]:
    """The declaration of every plugin op: an IPluginCreatorV3One of its contract.

    A creator says name, version, fields, shapes, dtypes and aliases of an op: all that a build ahead of time needs.

    Args:
        trt: the TensorRT module.
        entries: `module:factory` by op name; the factory takes the TensorRT module and returns the creator.

    Raises:
        InputError: a creator that cannot be imported.
    """
    return {op: _factory(op, entry)(trt) for op, entry in entries.items()}


def register_plugins(trt: Any, creators: Mapping[str, Any]) -> None:
    """Declare the plugin ops to TensorRT by Python creators, which must outlive the build: the registry borrows them.

    With `ENABLE_PLUGIN_OVERRIDE` a node whose op is a model-local function becomes the plugin registered under that
    name.

    Raises:
        BuildError: TensorRT refused one.
    """
    registry = trt.get_plugin_registry()
    for op, creator in creators.items():
        if not registry.register_creator(creator, ""):
            raise BuildError(
                f"plugin {op}",
                expected="to be registered",
                found="a refusal by the registry",
                todo="use --ops native, and report this: the name is taken, or the declaration is faulty",
            )


def load_plugins(trt: Any, library: Path, creators: Mapping[str, Any]) -> None:
    """Declare the plugin ops to TensorRT by a library's own creators, which must be those of the contracts.

    Args:
        trt: the TensorRT module.
        library: in whose interface to TensorRT nothing but this build's end shows that it fits.
        creators: the declarations of `make_creators`, by op; compared, not registered.

    Raises:
        BuildError: the library is refused, or has another op, version or other fields than a contract.
    """
    registry, todo = (
        trt.get_plugin_registry(),
        "build the library again from this version's plugins/, or use --ops native",
    )
    with tensorrt_step("the plugin library"):
        handle = registry.load_library(library_name(library))
    if handle is None:
        raise BuildError("the plugin library", expected="TensorRT to load it", found="a refusal", todo=todo)
    loaded = {creator.name: creator for creator in registry.all_creators}
    for op, wanted in creators.items():
        found = _declared(loaded[op]) if op in loaded else "no such plugin"
        if found != _declared(wanted):
            raise BuildError(f"plugin {op} of the library", expected=_declared(wanted), found=found, todo=todo)


def check_answers(creators: Mapping[str, Any]) -> None:
    """Refuse an engine whose plugins, declared in Python, failed to say how much scratch memory they need: TensorRT
    lets that pass and gives them none.

    Raises:
        InternalError: naming the op.
    """
    for op, creator in creators.items():
        for failure in getattr(creator, "failures", ()):
            found = f"{type(failure).__name__}: {failure}"
            raise InternalError(f"plugin {op}", expected="its declaration to answer every question", found=found)


def library_name(library: Path) -> str:
    """What TensorRT is told: with a folder in it, or the loader would look in its own places."""
    return str(library) if library.is_absolute() else f"./{library}"


def _declared(creator: Any) -> str:
    return f"version {creator.plugin_version}, fields {', '.join(field.name for field in creator.field_names)}"


def carried_bytes(request: EngineRequest) -> int:
    """Bytes of the library that goes into the engine, 0 for none."""
    return 0 if request.plugin_library is None else request.plugin_library.stat().st_size


def check_creators(plugin_ops: Mapping[str, int], creators: Mapping[str, str]) -> None:
    """Refuse plugin ops nobody declares, before anything is built.

    Raises:
        InputError: naming the ops.
    """
    missing = sorted(set(plugin_ops) - set(creators))
    if missing:
        raise InputError(
            "--ops plugin",
            expected=f"a TensorRT plugin creator for {', '.join(missing)}",
            found="none" if not creators else f"creators for {', '.join(sorted(creators))}",
            todo="use --ops native",
        )


def _factory(op: str, entry: str) -> Any:
    module, _, name = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"plugin {op}", expected=f"a creator at {entry}", found=str(error), todo="write it as module:factory"
        ) from error
