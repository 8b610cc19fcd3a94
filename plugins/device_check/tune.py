"""Compiles every configuration that mamba_ssm's scan tries, on all processors and ahead of its timing.

Triton compiles one configuration after the other while it tunes, minutes of them. Here each of some processes takes a
share of the configurations and leaves the code in Triton's cache on disk, where the process that times finds it; what
is fastest is found there, on a quiet card.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from device_check.place import Place

_PROCESSES = 12
_TOKENS = 2048  # a multiple of 16, as all timed lengths: Triton makes other code for others


def run(place: Place) -> None:
    """Starts the processes and waits for them."""
    if place.peers is None or place.device != "cuda":
        place.emit("skipped", what="Triton's code ahead", why="no folder of prepare_peers.py, or no card")
        return
    count = min(_PROCESSES, max(1, (os.cpu_count() or 1) - 2))
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    code += "from device_check import tune; tune.compile_share(sys.argv[1], *map(int, sys.argv[2:]))"
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen([*command, str(place.peers), str(i), str(count)]) for i in range(count)]
    codes = [process.wait() for process in processes]
    place.emit("note", what="Triton's code ahead", codes=codes)


def compile_share(peers: str, share: int, shares: int) -> None:
    """Every `shares`-th configuration from `share` on, for every chunk."""
    import torch  # noqa: PLC0415 (in the processes that compile)

    from device_check.mixer_peers import CHUNKS, import_mamba_ssm, scan_tuners  # noqa: PLC0415
    from device_check.mixer_set import LAYER_12B, Size  # noqa: PLC0415

    triton = import_mamba_ssm(Path(peers))
    for tuner in scan_tuners(triton):
        own, safe = tuner.configs[share::shares], tuner.configs[-1]
        tuner.configs = own if safe in own and len(own) > 1 else [*own, safe]  # one alone would not be tried but run
        tuner.do_bench = _once
    size = Size(1, _TOKENS, **LAYER_12B)
    x_heads, state_groups = (size.heads, size.head_dim), (size.groups, size.state_size)
    normal = torch.randn(1, _TOKENS, size.channels, device="cuda").bfloat16()
    x, b, c = normal.split([size.inner, *[size.groups * size.state_size] * 2], dim=-1)
    dt = torch.randn(1, _TOKENS, size.width, device="cuda").bfloat16()[..., -size.heads :]
    parameters = torch.randn(3, size.heads, device="cuda")
    for chunk in CHUNKS:
        triton("ssd_combined")._mamba_chunk_scan_combined_fwd(
            *(x.unflatten(-1, x_heads), dt, -parameters[0].abs()),
            *(b.unflatten(-1, state_groups), c.unflatten(-1, state_groups), chunk),
            D=parameters[1].bfloat16(),
            dt_bias=parameters[2].bfloat16(),
            initial_states=torch.randn(1, *x_heads, size.state_size, device="cuda"),
            dt_softplus=True,
        )
    torch.cuda.synchronize()


def _once(call: object, quantiles: object = None) -> list[float]:
    call()  # type: ignore[operator]
    return [1.0, 1.0, 1.0]
