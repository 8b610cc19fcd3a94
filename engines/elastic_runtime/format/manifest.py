"""`manifest.json`, schema `elastic-bundle/1`: what a bundle holds and what it needs.

The records below are the schema: each field of a record is a field of the JSON object, all required, no other allowed
(records.py). Paths are relative to the bundle, `/` between the parts. Sizes are bytes. Nothing in it is a time or a
place of the machine that made it, except the day on which a card verified an engine. Order: files by path, budgets
`by_size`, engines by target and context. The `seal` is explained in seal.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Literal

from elastic_runtime.format.budget_size import Activation, BudgetSize
from elastic_runtime.format.interface import Alias, Dim, OpsMode, Precision
from elastic_runtime.format.records import OPTIONAL, encode
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.format.slicing import Runs

SCHEMA = "elastic-bundle/1"
WeightMode = Literal["shared", "sliced", "embedded"]
Quantisation = Literal["int8"]
Option = str | int | bool | tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle; an external one is only named and lies in a folder that the consumer names."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights came from: its folder's name and its fingerprint (equal for the same weights, wherever they
    lie).
    """

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Widths:
    """Widths of a sub-model. `ffn_sizes` by MLP layer, `mamba_heads` by Mamba layer, of the sub-model."""

    vocab_size: int
    hidden_size: int
    ffn_sizes: tuple[int, ...]
    mamba_heads: tuple[int, ...]
    mamba_head_dim: int
    ssm_groups: int
    ssm_state: int
    conv_kernel: int
    attention_heads: int
    kv_heads: int
    attention_head_dim: int


@dataclass(frozen=True)
class StateEntry:
    """A state: the parent's layer it belongs to and, per axis, which of the parent's indices it keeps (None: B and
    S).
    """

    name: str
    parent_layer: int
    runs: tuple[Runs | None, ...]


@dataclass(frozen=True)
class InputPort:
    """An input of model and engine. Dimensions are numbers or B (batch), T (tokens of the call), S (max_context)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class OutputPort:
    """An output; a state output names its input and whether both share one buffer."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    input: str | None
    alias: Alias | None


@dataclass(frozen=True)
class CarriedLibrary:
    """The plugin library inside an engine: its file's name in elastic-plugins, size and digest, the TensorRT headers it
    was built with, and the CUDA architectures it has code for, as CMake spells them.
    """

    file: str
    size: int
    sha256: str
    abi: str
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class Plugin:
    """The library an engine with `ops` plugin needs, and the TensorRT that loads it (`rtx-1.7`).

    `carried` is the one that the engine holds; without it one has to be installed, or named. The entry proves nothing:
    a reader looks into the engine (engine_code.py).
    """

    library: str
    abi: str
    carried: CarriedLibrary | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Status:
    """`built`: never run on a card. `verified`: on which card and on which day (YYYY-MM-DD)."""

    state: Literal["built", "verified"]
    card: str | None = None
    date: str | None = None


@dataclass(frozen=True)
class Fits:
    """The reckoning of `fit.vram_needed` at the engine's context and max_batch; `fits` is None for a portable
    target.
    """

    context: int
    batch: int
    weights: int
    states: int
    caches: int
    activation: int
    activation_measured: bool
    reserve: int
    total: int
    usable: int | None
    enough: bool | None


@dataclass(frozen=True)
class EngineEntry:
    """One engine file. `activation` is the builder's figure for the larger profile until `activation_measured`, and the
    buffer of the logits [B, T, V] where it gives those of every token.
    """

    target: str
    compute_capabilities: tuple[str, ...]
    file: str
    flavour: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    ops: OpsMode
    plugin: Plugin | None
    max_context: int
    max_tokens: int
    max_batch: int
    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]
    activation: int
    activation_measured: bool
    status: Status
    fits: Fits

    @property
    def logits(self) -> OutputPort:
        """The output that is no state: a manifest that was read has one."""
        return next(port for port in self.outputs if port.input is None)


@dataclass(frozen=True)
class BudgetEntry:
    """One sub-model in one form. `scalar_widths`: tools that know one width per layer kind can load its config.
    `quantisation` is how its matrices are stored, absent where they have the bundle's precision: `int8`, a scale a row.

    Each form of a budget is an entry with a folder, weights, golden run and engines of its own, under a name of its own
    (`forms.py`).
    """

    name: str
    parameters: int
    pattern: str
    layers: int
    kept_layers: tuple[int, ...]
    widths: Widths
    scalar_widths: bool
    weight_bytes: int
    state_bytes: int
    kv_bytes_per_token: int
    states: tuple[StateEntry, ...]
    model: str
    weights: str | None
    golden: str | None
    report: str | None
    engines: tuple[EngineEntry, ...]
    quantisation: Quantisation | None = field(default=None, metadata=OPTIONAL)

    @property
    def budget(self) -> str:
        """The budget that it is a form of: earlier exports gave int8 entries that name itself."""
        return self.name if self.quantisation is None else self.name.removesuffix(f".{self.quantisation}")

    def size(self, engine: EngineEntry) -> BudgetSize:
        """What its memory depends on, with that engine."""
        scratch = Activation(engine.activation, engine.activation_measured)
        return BudgetSize(
            self.name, self.parameters, self.weight_bytes, self.state_bytes, self.kv_bytes_per_token, scratch
        )


@dataclass(frozen=True)
class Manifest:
    """The whole file. `weight_mode` is that of budgets that are not quantised. `options` are those of the export that
    change its bytes; `versions` of the programs that took part.
    """

    producer: str
    demo: bool
    checkpoint: Checkpoint
    precision: Precision
    weight_mode: WeightMode
    logits: Literal["last", "all"]
    options: dict[str, Option]
    versions: dict[str, str]
    rules: tuple[str, ...]
    budgets: tuple[BudgetEntry, ...]
    files: tuple[FileEntry, ...] = ()
    external_weights: tuple[FileEntry, ...] = ()

    def to_json(self) -> str:
        """The text of manifest.json, sealed; equal manifests give equal bytes."""
        body = {"schema": SCHEMA, "seal": EMPTY, **encode(ordered(self))}
        return seal(json.dumps(body, indent=1, ensure_ascii=False) + "\n")

    def budget(self, name: str) -> BudgetEntry | None:
        """The budget of that name."""
        return next((budget for budget in self.budgets if budget.name == name), None)

    def file(self, path: str) -> FileEntry | None:
        """The file of that path."""
        return next((entry for entry in self.files if entry.path == path), None)


def ordered(manifest: Manifest) -> Manifest:
    """The same manifest in the order of the module docstring."""
    budgets = sorted(manifest.budgets, key=by_size)
    return replace(
        manifest,
        budgets=tuple(replace(b, engines=tuple(sorted(b.engines, key=_engine_order))) for b in budgets),
        files=tuple(sorted(manifest.files, key=lambda entry: entry.path)),
        external_weights=tuple(sorted(manifest.external_weights, key=lambda entry: entry.path)),
    )


def by_size(entry: BudgetEntry) -> tuple[int, str, bool, str]:
    """The order in which a budget is chosen: the largest first; of one budget what was not quantised first, so that
    eight bits come before a smaller budget, and after the weights that were trained.
    """
    return -entry.parameters, entry.budget, entry.quantisation is not None, entry.name


def _engine_order(engine: EngineEntry) -> tuple[str, int, str]:
    return engine.target, engine.max_context, engine.file
