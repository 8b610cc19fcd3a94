"""Public kernels that do what the mixer does, on the mixer's own tensors: convolution, scan, gated norm.

Their shapes and numbers are the 12B model's (BF16 activations, FP32 state, head size 80, state size 128), because
FlashInfer's kernel is compiled for them. What they are given prepared (A negative and in float32) costs them nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import types
from collections.abc import Callable
from ctypes import c_int, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import torch
from triton.runtime.autotuner import Autotuner
from triton.testing import do_bench

from device_check.mixer_set import MixerSet
from device_check.timing import Work

#: Chunks of mamba_ssm's scan that are tried.
CHUNKS = (64, 128, 256)
SSU_ALGORITHMS = {"simple": 1, "vertical": 2}


def open_library(path: Path) -> ctypes.CDLL:
    """A peer's library; its calls into the driver are found in the driver."""
    ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def import_mamba_ssm(folder: Path) -> Callable[[str], Any]:
    """Imports modules of mamba_ssm.ops.triton, past packages whose __init__ wants compiled extensions."""
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules.setdefault(name, package)
    return lambda name: importlib.import_module(f"mamba_ssm.ops.triton.{name}")


def scan_tuners(triton: Callable[[str], Any]) -> list[Autotuner]:
    """What chooses the configurations of mamba_ssm's scan."""
    modules = (triton(name) for name in ("ssd_bmm", "ssd_chunk_state", "ssd_state_passing", "ssd_chunk_scan"))
    return [tuner for module in modules for tuner in vars(module).values() if isinstance(tuner, Autotuner)]


class Peers:
    """All peers over a folder of prepare_peers.py. A work is made for one MixerSet and may be captured."""

    def __init__(self, folder: Path) -> None:
        triton = import_mamba_ssm(folder)
        self.scan = triton("ssd_combined")._mamba_chunk_scan_combined_fwd
        self.update = triton("selective_state_update").selective_state_update
        self.norm = triton("layernorm_gated")._layer_norm_fwd
        self.tuners = scan_tuners(triton)
        for tuner in self.tuners:
            tuner.do_bench = lambda call, quantiles: do_bench(call, warmup=5, rep=20, quantiles=quantiles)
        self.conv = open_library(folder / "libpeer_causal_conv1d.so")
        self.conv.peer_causal_conv1d_update.argtypes = [c_void_p] * 5 + [c_int] * 2 + [c_uint32, c_void_p]
        self.conv.peer_causal_conv1d_fwd.argtypes = [c_void_p] * 6 + [c_int] * 3 + [c_uint32, c_void_p]
        self.ssu = open_library(folder / "libpeer_flashinfer_ssu.so")
        self.ssu.peer_flashinfer_ssu.argtypes = [c_void_p] * 9 + [c_int] * 3 + [c_int64] * 5 + [c_int, c_void_p]

    def forget(self) -> None:
        """Makes Triton tune again: it would keep what was best for the first length it met."""
        for tuner in self.tuners:
            tuner.cache.clear()

    def decode(self, s: MixerSet) -> dict[str, Work]:
        """By name: one token of every row, three launches."""
        works: dict[str, Work] = {"mamba_ssm": lambda: self._decode(s, self._triton_update)}
        for name, code in SSU_ALGORITHMS.items():
            works[f"flashinfer {name}"] = lambda code=code: self._decode(s, self._flashinfer_update(code))  # type: ignore[misc]
        return works

    def prefill(self, s: MixerSet) -> dict[str, Work]:
        """By name: a chunk of mamba_ssm's scan each."""
        return {f"mamba_ssm chunk {chunk}": lambda chunk=chunk: self._prefill(s, chunk) for chunk in CHUNKS}  # type: ignore[misc]

    def _decode(self, s: MixerSet, update: Callable[[MixerSet, torch.Tensor], torch.Tensor]) -> Any:
        size, p = s.size, s.parameters
        xbc = torch.empty(size.batch, size.channels, device="cuda", dtype=s.projected.dtype)
        raw = s.projected[:, 0, size.inner :]
        pointers = [t.data_ptr() for t in (raw, p["conv_weight"], p["conv_bias"], s.conv_state, xbc)]
        _must(
            self.conv.peer_causal_conv1d_update(*pointers, size.batch, size.channels, size.width, _stream()),
            "causal_conv1d_update",
        )
        return self._normed(s, update(s, xbc)), s.ssm_state

    def _triton_update(self, s: MixerSet, xbc: torch.Tensor) -> torch.Tensor:
        size, p = s.size, s.parameters
        x, b, c, dt, a = _split(s, xbc[:, None])
        heads = (size.heads, size.head_dim)
        return self.update(
            *(s.ssm_state, x[:, 0], dt[:, 0, :, None].expand(-1, *heads)),
            *(a[:, None, None].expand(*heads, size.state_size), b[:, 0], c[:, 0]),
            D=p["D"][:, None].expand(*heads),
            dt_bias=p["dt_bias"][:, None].expand(*heads),
            dt_softplus=True,
        )

    def _flashinfer_update(self, algorithm: int) -> Callable[[MixerSet, torch.Tensor], torch.Tensor]:
        def update(s: MixerSet, xbc: torch.Tensor) -> torch.Tensor:
            size, p = s.size, s.parameters
            x, b, c, dt, a = _split(s, xbc[:, None])
            out = torch.empty(size.batch, size.inner, device="cuda", dtype=xbc.dtype)
            tensors = (s.ssm_state, x, dt, p["dt_bias"], a, b, c, p["D"], out)
            strides = (size.channels, size.width, size.channels, size.channels, size.inner)
            pointers = [t.data_ptr() for t in tensors]
            numbers = (size.batch, size.heads, size.groups, *strides, algorithm)
            _must(self.ssu.peer_flashinfer_ssu(*pointers, *numbers, _stream()), "flashinfer")
            return out

        return update

    def _prefill(self, s: MixerSet, chunk: int) -> Any:
        size, p = s.size, s.parameters
        xbc = torch.empty(size.batch, size.tokens, size.channels, device="cuda", dtype=s.projected.dtype)
        raw = s.projected[..., size.inner :]
        tensors = (raw, p["conv_weight"], p["conv_bias"], s.conv_state, s.conv_state_out, xbc)
        pointers = [t.data_ptr() for t in tensors]
        numbers = (size.batch, size.channels, size.tokens, size.width)
        _must(self.conv.peer_causal_conv1d_fwd(*pointers, *numbers, _stream()), "causal_conv1d_fwd")
        x, b, c, dt, a = _split(s, xbc)
        found = self.scan(
            *(x, dt, a, b, c, chunk),
            D=p["D"],
            dt_bias=p["dt_bias"],
            initial_states=s.ssm_state,
            dt_softplus=True,
        )
        return self._normed(s, found[0]), found[5]

    def _normed(self, s: MixerSet, y: torch.Tensor) -> torch.Tensor:
        size = s.size
        z = s.projected.view(-1, size.width)[:, : size.inner]
        out, _, _ = self.norm(
            *(y.reshape(-1, size.inner), s.parameters["norm_weight"], None, 1e-5),
            z=z,
            group_size=size.inner // size.groups,
            norm_before_gate=False,
            is_rms_norm=True,
        )
        return out.view(size.batch, size.tokens, size.inner)


def _split(s: MixerSet, xbc: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """x [B, T, H, P], B and C [B, T, G, N] of the convolution's output, dt [B, T, H], A [H]: views, but for A."""
    size = s.size
    x, b, c = xbc.split([size.inner, size.groups * size.state_size, size.groups * size.state_size], dim=-1)
    if not hasattr(s, "a"):
        s.a = -torch.exp(s.parameters["A_log"].float())  # type: ignore[attr-defined]
    return (
        x.unflatten(-1, (size.heads, size.head_dim)),
        b.unflatten(-1, (size.groups, size.state_size)),
        c.unflatten(-1, (size.groups, size.state_size)),
        s.projected[..., -size.heads :],
        s.a,  # type: ignore[attr-defined]
    )


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)


def _must(code: int, what: str) -> None:
    if code != 0:
        raise RuntimeError(f"{what}: error {code}")
