"""C++ sessions on onnxruntime go back to a snapshot bit for bit, and it takes what Python's takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from elastic_runtime.bundle import Bundle
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session import Session


def test_a_restored_session_goes_on_as_if_it_had_never_left(host_program: Path, wide_bundle: Path) -> None:
    probe = next(host_program.parent.rglob("snapshot_probe"))
    done = subprocess.run([probe, wide_bundle, "small"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [int(line) for line in done.stdout.split()]
    bundle = Bundle.open(wide_bundle)
    with Session(open_onnx(bundle, bundle.budget("small"), context=128, threads=1), batch=2) as session:
        session.prefill([[65] * 40, [66, 67]])
        first = session.snapshot().nbytes
        session.prefill([[65], []])
        assert said == [first, session.snapshot().nbytes]
