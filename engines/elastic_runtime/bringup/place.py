"""What a stage's process is told: the bundle, the report's folder, and which engine, budget or mode it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from elastic_runtime.bringup.modes import MODES, WHOLE_GRAPH, pin
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.cuda import CudaDevice
from elastic_runtime.driver.free_memory import card
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend
from elastic_runtime.tensorrt.open_tensorrt import open_engine, read_checked
from elastic_runtime.tensorrt.plugin_library import plugin_source
from elastic_runtime.tensorrt.preflight import load_tensorrt
from elastic_runtime.tensorrt.trt_engine import TrtEngine

#: For every Python that is started. -P: the folder that this is called from may be the download, and its numpy.py is
#: not to run. -u: what was said is in the log when a process is ended.
OPTIONS = ("-P", "-u")
#: How a stage is called, from within bring_up or another stage.
CHILD = (*OPTIONS, "-m", "elastic_runtime.bringup.child")


@dataclass(frozen=True)
class Place:
    """Where a stage runs.

    Attributes:
        bundle: its folder.
        folder: of the report.
        engine: a file of the manifest; empty for stages that need none.
        budget: the name of one, for stages that run a model without an engine.
        mode: how decode steps run (modes.py).
        plugins: a folder of plugin libraries.
        trust_engine: the caller vouches for the code inside engines.
        external: where the parent's shards lie.
        sources: the folder of the plugins' sources.
    """

    bundle: Path
    folder: Path
    engine: str = ""
    budget: str = ""
    mode: str = WHOLE_GRAPH
    plugins: Path | None = None
    trust_engine: bool = False
    external: Path | None = None
    sources: Path | None = None

    def to_json(self) -> str:
        """For a command line; `from_json` reads it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in values.items()})

    @classmethod
    def from_json(cls, text: str) -> Place:
        """What `to_json` wrote."""
        values = json.loads(text)
        for name in ("bundle", "folder", "plugins", "external", "sources"):
            if values[name] is not None:
                values[name] = Path(values[name])
        return cls(**values)

    def opened(self) -> tuple[Bundle, BudgetEntry, EngineEntry]:
        """The bundle, and the engine with its budget. Raises BuildError: there is no such engine in it."""
        bundle = Bundle.open(self.bundle, external=self.external)
        for budget in bundle.budgets:
            for engine in budget.engines:
                if engine.file == self.engine:
                    return bundle, budget, engine
        raise BuildError(self.engine, expected="an engine of the bundle", found="none", todo="name one of its files")

    @contextmanager
    def engine_alone(self, say: Callable[[str], None]) -> Iterator[tuple[CudaDevice, TrtEngine]]:
        """The engine as a session reads it, without contexts and weights and with no kernels kept, on its device."""
        bundle, _, entry = self.opened()
        source = plugin_source(entry, card().compute_capability, given=self.plugins, trusted=self.trust_engine)
        data = read_checked(bundle, entry)
        plugins: Any = {"plugin": source.library, "host_code": source.carried}
        with (
            closing(CudaDevice()) as device,
            closing(TrtEngine(load_tensorrt(), entry, data, device, **plugins, cache=None, say=say)) as opened,
        ):
            yield device, opened

    def backend(self, say: Callable[[str], None] = print) -> EngineBackend:
        """The engine, opened as a session does; kernels are kept in a folder of the report."""
        bundle, budget, engine = self.opened()
        mode = MODES[self.mode]
        pin(load_tensorrt, mode)
        kept = self.folder / "kernels"
        request = Request(plugin_folder=self.plugins, trust_engine=self.trust_engine, cache_folder=kept)
        backend = open_engine(bundle, budget, engine, request, card(), say=say)
        assert isinstance(backend, EngineBackend)
        if mode.graphs is not None:
            backend.graphs = mode.graphs
        return backend
