"""What is damaged in an older bundle, or in the checkpoint, is named and made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import digests, fingerprint
from elastic_runtime.bundle import Bundle
from repeated_export import Seen, run
from small_export import contents

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    ("name", "built_again"),
    [
        ("half/rtx5080.engine", ["half/rtx5080.engine"]),
        ("half/model.onnx", []),
        ("half/weights.json", []),
        ("half/golden.safetensors", []),
        ("half/report.json", ["half/rtx5080.engine"]),
        ("LICENSE", []),
    ],
)
def test_what_is_damaged_is_named_and_made_again(
    tmp_path: Path, checkpoint: Path, seen: Seen, how: str, name: str, built_again: list[str]
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, verify=True)
    before = contents(out)
    target = out / name
    data = target.read_bytes()  # a bundle's LICENSE is a link to the checkpoint's
    target.unlink()
    target.write_bytes(data)
    DAMAGE[how](target)
    run(checkpoint, out, seen, verify=True)
    assert contents(out) == before
    assert seen.built == built_again
    assert Bundle.open(out, "digests")
    if name != "LICENSE":
        told = {"flipped": "damaged", "cut": "of another size than the manifest says", "gone": "missing"}[how]
        assert f"{target}: {told}, so not kept" in seen.said


@pytest.mark.parametrize("verify", [True, False])
def test_a_byte_changed_under_the_old_time_is_found_by_distrust(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    monkeypatch.setattr(fingerprint, "_SAMPLE", 8)  # else it would see all of tensors as small as these
    run(checkpoint, tmp_path / "out", seen, verify=verify)
    [shard] = checkpoint.glob("*.safetensors")
    with shard.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(shard, (1_600_000_000, 1_600_000_000))
    assert not run(checkpoint, tmp_path / "out", seen, verify=verify).changed, "nothing tells of it but the bytes"
    read, streamed = list[str](), digests.streamed_digest

    def noted(path: Path, **more: Any) -> tuple[int, str]:
        read.append(str(path))
        return streamed(path, **more)

    monkeypatch.setattr(digests, "streamed_digest", noted)
    result = run(checkpoint, tmp_path / "out", seen, verify=verify, distrust=True)
    assert result.changed
    assert read.count(str(shard)) == 1, "24 GB are read once, not by every part of an export that asks"
    assert (seen.built, seen.verified) == ([], ["full", "half"] if verify else []), "weights are inputs of the engines"
    assert "full: made again: other weights or another config" in seen.said
    assert Bundle.open(tmp_path / "out", "digests")
