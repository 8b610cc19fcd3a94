"""An export that would write the same writes nothing, and reads no weights to know it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import digests
from elastic_export.cli.main import cli
from elastic_export.compile import ExportResult
from elastic_runtime.errors import BuildError
from repeated_export import Seen, inodes, run

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]


@pytest.mark.parametrize("weights", ["shared", "sliced"])
def test_files_that_are_shipped_in_a_folder_or_written_anew_are_no_change(
    tmp_path: Path, checkpoint: Path, seen: Seen, weights: str
) -> None:
    """Chat templates with names lie in a folder; which ids end a text may stand in config.json alone."""
    config, template = checkpoint / "config.json", checkpoint / "additional_chat_templates" / "tool.jinja"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 2}))
    template.parent.mkdir()
    template.write_text("{{ messages }}")
    options = {"weights": weights}
    first = run(checkpoint, tmp_path / "out", seen, **options)
    inside = "" if weights == "shared" else "half/"
    assert {f"{inside}generation_config.json", f"{inside}additional_chat_templates/tool.jinja"} <= paths(first)
    again = run(checkpoint, tmp_path / "out", seen, **options)
    assert (again.changed, again.manifest) == (False, first.manifest)
    template.write_text("{{ messages[0] }}")
    assert run(checkpoint, tmp_path / "out", seen, **options).changed
    template.rename(checkpoint / "tool.jinja")
    moved = run(checkpoint, tmp_path / "out", seen, **options)
    assert f"{inside}tool.jinja" in paths(moved)
    assert f"{inside}additional_chat_templates/tool.jinja" not in paths(moved)


def paths(result: ExportResult) -> set[str]:
    return {entry.path for entry in result.manifest.files}


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    first = run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (first.changed, seen.verified) == (True, ["full", "half"])
    before, record = inodes(tmp_path), (tmp_path / "out.run.json").read_text()
    again = run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (again.changed, again.manifest, again.run) == (False, first.manifest, json.loads(record))
    assert inodes(tmp_path) == before
    assert (seen.built, seen.verified, seen.said) == ([], [], [])


@pytest.mark.parametrize("weights", ["sliced", "embedded", "shared"])
def test_no_byte_of_the_weights_is_read(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """Of files whose digests are remembered: the checkpoint's from the first run on, those of a sliced bundle from the
    second on (what has just been written may still change under the same time).
    """
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    options, read, compute = (
        {"weights": weights, "external_weights": weights == "shared"},
        set[Path](),
        digests.streamed_digest,
    )

    def note(path: Path, **more: Any) -> tuple[int, str]:
        read.add(path)
        return compute(path, **more)

    run(checkpoint, tmp_path / "out", seen, **options)
    for file in (tmp_path / "out").rglob("*"):
        os.utime(file, (1_600_000_000, 1_600_000_000))
    monkeypatch.setattr(digests, "streamed_digest", note)
    assert not run(checkpoint, tmp_path / "out", seen, **options).changed
    assert [path for path in read if path.parent == checkpoint] == []
    read.clear()
    assert not run(checkpoint, tmp_path / "out", seen, **options).changed
    assert read == set()


def test_shards_that_are_links_to_the_checkpoints_are_as_whole_as_those(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    run(checkpoint, tmp_path / "out", seen)
    read, compute = list[str](), digests.streamed_digest
    monkeypatch.setattr(
        digests, "streamed_digest", lambda path, **more: (read.append(path.name), compute(path, **more))[1]
    )
    assert not run(checkpoint, tmp_path / "out", seen).changed
    assert [name for name in read if name.endswith(".safetensors")] == []


def test_an_engine_that_does_not_fit_is_refused_though_it_stands(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    seen.scratch = 1 << 40
    run(checkpoint, tmp_path / "out", seen, allow_unfit=True)
    before = inodes(tmp_path)
    with pytest.raises(BuildError, match="target rtx5080: expected at least one engine that fits it once it is built"):
        run(checkpoint, tmp_path / "out", seen)
    with pytest.raises(BuildError, match="--require-fit: expected every engine to fit its card"):
        run(checkpoint, tmp_path / "out", seen, allow_unfit=True, require_fit=True)
    assert inodes(tmp_path) == before


def test_the_command_says_so_without_torch(
    tmp_path: Path, checkpoint: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", str(checkpoint), "--budget", "all", "--target", "rtx5080", "--max-context", "64",
             "--max-tokens", "16", "--no-verify", "--output", str(tmp_path / "out")]  # fmt: skip
    cli.main(words, standalone_mode=False)
    assert "nothing to do" not in capsys.readouterr().out
    cli.main([*words, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["changed"], [b["kept"] for b in told["budgets"]]) == (False, [True, True])
    assert told["run"] == json.loads((tmp_path / "out.run.json").read_text())
    code = "import sys\nfrom elastic_export.cli.main import cli\n" + (
        f"cli.main({words!r}, standalone_mode=False)\nprint(sorted({{'torch', 'onnx'}} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, said, _, modules = done.stdout.splitlines()
    assert said.endswith("; nothing to do: this export would write the same")
    assert modules == "[]"
