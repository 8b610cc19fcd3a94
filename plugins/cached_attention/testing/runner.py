"""Builds attention_cases on the host shim and runs cases through it, or through one that was built for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from cached_attention.testing.cases import make_data, read_result, write_case
from mamba2_mixer.testing.runner import SHIM, HostBuild, Runs

#: Translation units of the library, without the TensorRT glue.
SOURCES = (
    "common/last_error.cpp",
    "cached_attention/select.cpp",
    "cached_attention/c_api.cu",
    "cached_attention/launch_float16.cu",
    "cached_attention/launch_bfloat16.cu",
)
NARROWER = "cached_attention/launch_bfloat16.cu"
MAIN = "cached_attention/testing/attention_cases.cu"


@dataclass(frozen=True)
class AttentionBuild(HostBuild):
    """How the sources are compiled for this machine's CPU; `float16_only` leaves the other type out."""

    float16_only: bool = False

    def sources(self) -> tuple[str, ...]:
        """Translation units of the library and the shim."""
        return (*SHIM, *(s for s in SOURCES if not (self.float16_only and s == NARROWER)))

    def flags(self, source: str = "") -> list[str]:
        """The options of g++ for `source`."""
        return [*super().flags(source), *(["-DELASTIC_FLOAT16_ONLY"] if self.float16_only else [])]


#: Made in a moment, for what needs neither sanitizers nor both types.
QUICK = AttentionBuild(float16_only=True, watch=())

ATTENTION = Runs(make_data, write_case, read_result)
run_case, run_cases = ATTENTION.run_case, ATTENTION.run_cases
write_list, read_list = ATTENTION.write_list, ATTENTION.read_list
