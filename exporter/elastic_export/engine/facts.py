"""What is known of an engine once it is built: what the manifest and the summary are written from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EngineFacts:
    """One built engine.

    Args:
        size: bytes of the engine file.
        sha256: of the engine file, hexadecimal.
        seconds: wall time of parse and build, without starting the process.
        peak_rss: highest resident memory of the build process, bytes.
        activation_bytes: the builder's "Total Activation Memory" per optimisation profile, in profile order.
        plugin_layers: layers per plugin op name.
        in_place: states that are updated in the buffer of their input: input -> output, as the network was built.
        layers: layers of the parsed network.
        unused_inputs: token inputs that the graph does not read, as the parser reports them.
        compute_capabilities: the GPU classes the engine holds code for.
        flavour, version: the TensorRT product and its version.
        chances: why another build of the same request by the same installation may give other bytes of equal meaning,
            see `isolation.py`; empty where it gives the same ones.
        warnings: those of the builder that say something new, a line each.
    """

    size: int
    sha256: str
    seconds: float
    peak_rss: int
    activation_bytes: tuple[int, ...]
    plugin_layers: Mapping[str, int]
    in_place: Mapping[str, str]
    layers: int
    unused_inputs: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    flavour: str
    version: str
    chances: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def activation_peak(self) -> int:
        """Bytes of scratch memory an execution context needs: the larger profile."""
        return max(self.activation_bytes)

    def to_json(self) -> str:
        """These facts as JSON text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EngineFacts:
        """The facts that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        for key in ("activation_bytes", "unused_inputs", "compute_capabilities", "chances", "warnings"):
            values[key] = tuple(values[key])
        return cls(**values)
