"""What is known of an engine once it is built: for the manifest, the screen and the budget's report.

Much of it is read off the builder's log: on a machine without a GPU nobody else says what an engine will need.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from elastic_export.engine.request import PROFILE_NAMES
from elastic_runtime.format.records import decode, encode

#: Written once per optimisation profile, in profile order, whatever the number of compute capabilities (1.7.1).
ACTIVATION_LINE = re.compile(r"^Total Activation Memory: (\d+) bytes$")
#: Written while parsing, once per graph input nobody reads (1.7.1).
UNUSED_LINE = re.compile(r"Unused Input: (\S+)$")
#: Written while building, of such an input, which stays an input all the same: it is in the interface of every model.
STAYS_LINE = re.compile(r"Input Tensor (\S+) is unused or used only at compile-time, but is not being removed\.$")
ERROR_SEVERITIES = ("INTERNAL_ERROR", "ERROR")


@dataclass(frozen=True)
class EngineReport:
    """What report.json says of an engine: the schema of its entry (records.py). No times, no figures of the machine.

    `activation_bytes` by profile name; `remarks`: see `EngineFacts.remarks`; all else as in `EngineFacts`.
    """

    flavour: str
    version: str
    layers: int
    plugin_layers: dict[str, int]
    in_place: dict[str, str]
    unused_inputs: tuple[str, ...]
    activation_bytes: dict[str, int]
    reproducible: bool
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class EngineFacts:
    """One built engine. All but `seconds` and `peak_rss` are the same for the same build.

    Args:
        size: bytes of the engine file.
        seconds: wall time of parse and build, without starting the process.
        peak_rss: highest resident memory of the build process, bytes.
        activation_bytes: the builder's "Total Activation Memory" per optimisation profile, in profile order.
        plugin_layers: layers per plugin op name.
        in_place: states that are updated in the buffer of their input: input -> output, as the network was built.
        layers: layers of the parsed network.
        unused_inputs: token inputs that the graph does not read, as the parser reports them.
        flavour, version: the TensorRT product and its version.
        chances: why another build of the same request by the same installation may give other bytes of equal meaning,
            see `isolation.py`; empty where it gives the same ones.
        oversize: by how much it is above the bounds of the request, where these were lifted; a line each.
        warnings: those of the builder that say something new, a line each.
    """

    size: int
    seconds: float
    peak_rss: int
    activation_bytes: tuple[int, ...]
    plugin_layers: dict[str, int]
    in_place: dict[str, str]
    layers: int
    unused_inputs: tuple[str, ...]
    flavour: str
    version: str
    chances: tuple[str, ...]
    oversize: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def activation_peak(self) -> int:
        """Bytes of scratch memory an execution context needs: the larger profile."""
        return max(self.activation_bytes)

    def remarks(self) -> tuple[str, ...]:
        """What a person should hear of this build, a line each; nothing where all is as it should be."""
        chance = "another build may give other bytes of equal meaning"
        return (
            *(f"the builder warns: {text}" for text in self.warnings),
            *self.oversize,
            *((f"{chance}: {'; '.join(self.chances)}",) if self.chances else ()),
        )

    def report(self) -> EngineReport:
        """The engine's entry in the budget's report."""
        return EngineReport(
            flavour=self.flavour,
            version=self.version,
            layers=self.layers,
            plugin_layers=dict(self.plugin_layers),
            in_place=dict(self.in_place),
            unused_inputs=self.unused_inputs,
            activation_bytes=dict(zip(PROFILE_NAMES, self.activation_bytes, strict=True)),
            reproducible=not self.chances,
            remarks=self.remarks(),
        )

    def to_json(self) -> str:
        """These facts as JSON text."""
        return json.dumps(encode(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EngineFacts:
        """The facts that `to_json` wrote."""
        return decode(cls, json.loads(text), "the facts of a build")


@dataclass(frozen=True)
class LogLine:
    """One message of the builder; severity is TensorRT's own name for it."""

    severity: str
    text: str

    def __str__(self) -> str:
        return f"[{self.severity}] {self.text}"


def activation_bytes(log: Iterable[LogLine]) -> tuple[int, ...]:
    """Bytes of activation memory per profile, in profile order; empty where the builder said nothing."""
    matches = (ACTIVATION_LINE.search(line.text) for line in log)
    return tuple(int(match.group(1)) for match in matches if match)


def unused_inputs(log: Iterable[LogLine]) -> tuple[str, ...]:
    """Names of graph inputs that no node reads, as the parser warns about them."""
    matches = (UNUSED_LINE.search(line.text) for line in log)
    return tuple(match.group(1) for match in matches if match)


def errors(log: Iterable[LogLine]) -> tuple[str, ...]:
    """Texts of the errors, in order."""
    return tuple(line.text for line in log if line.severity in ERROR_SEVERITIES)
