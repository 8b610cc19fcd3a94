"""C++ sessions on onnxruntime go back to a snapshot bit for bit, and it takes what Python's takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from elastic_runtime.bundle import Bundle
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session import Session


def test_a_restored_session_goes_on_as_if_it_had_never_left(host_program: Path, wide_bundle: Path) -> None:
    probe = next(host_program.parent.rglob("snapshot_probe"))
    done = subprocess.run([probe, wide_bundle, "small"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [int(line.split()[0]) for line in done.stdout.splitlines()]
    bundle = Bundle.open(wide_bundle)
    with Session(open_onnx(bundle, bundle.budget("small"), context=128, threads=1), batch=2) as session:
        session.prefill([[65] * 40, [66, 67]])
        first = session.snapshot().nbytes
        session.prefill([[65], []])
        assert said == [first, session.snapshot().nbytes]


def test_on_a_card_it_gives_the_same(host_program: Path, wide_bundle: Path) -> None:
    """The stand-in's: onnxruntime's CPU computes on memory that the stand-in for CUDA gives, copies and zeroes."""
    said, environ = [], os.environ | {"ELASTIC_STAND_IN": "has_provider=1"}
    for name, place in (("snapshot_probe", ()), ("snapshot_probe_stand_in", ("card",))):
        command = [next(host_program.parent.rglob(name)), wide_bundle, "small", *place]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
    assert said[0] == said[1] != ""
