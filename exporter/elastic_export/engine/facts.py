"""What is known of an engine once it is built: what the manifest and the summary are written from."""

from __future__ import annotations

import json
from dataclasses import dataclass

from elastic_runtime.records import decode, encode


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
        in_place: state input names whose output shares their buffer by construction of the network (cache updates).
        layers: layers of the parsed network.
        unused_inputs: token inputs that the graph does not read, as the parser reports them.
        compute_capabilities: the GPU classes the engine holds code for.
        flavour, version: the TensorRT product and its version.
        reproducible: whether the same installation builds the same bytes of the same request, see `isolation.py`.
        warnings: what a reader of the build report should know.
    """

    size: int
    sha256: str
    seconds: float
    peak_rss: int
    activation_bytes: tuple[int, ...]
    plugin_layers: dict[str, int]
    in_place: tuple[str, ...]
    layers: int
    unused_inputs: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    flavour: str
    version: str
    reproducible: bool
    warnings: tuple[str, ...]

    @property
    def activation_peak(self) -> int:
        """Bytes of scratch memory an execution context needs: the larger profile."""
        return max(self.activation_bytes)

    def to_json(self) -> str:
        """These facts as JSON text."""
        return json.dumps(encode(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EngineFacts:
        """The facts that `to_json` wrote."""
        return decode(cls, json.loads(text), "the facts of a build")
