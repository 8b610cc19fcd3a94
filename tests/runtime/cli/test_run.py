"""`elastic-run` as a user meets it: what it prints, and where."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import elastic_runtime
from card_memory import apart
from elastic_runtime.cli import modes, run, stats
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.opening import places
from elastic_runtime.verify.verified import Verified
from run_command import run_here


def test_streams_text_and_says_how_fast(demo_bundle: Path) -> None:
    arguments = ("--budget", "small", "--prompt", "Hello", "--max-new", 8, "--ignore-eos", "--stats")
    done = run_here(demo_bundle, "--backend", "onnxruntime", *arguments)
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
    lines = dict(line.split(maxsplit=1) for line in done.stderr.splitlines())
    assert lines["backend"] == "onnxruntime, budget small"
    assert "for a prompt of 5" in lines["first"]
    assert "tokens/s, 8 tokens" in lines["then"]
    assert "weights" in lines["memory"]
    assert "GeForce RTX 5080" in lines["card's"]
    again = run_here(demo_bundle, *arguments[:-1])
    assert again.stdout == done.stdout


def test_reads_the_prompt_from_standard_input(demo_bundle: Path) -> None:
    given = run_here(demo_bundle, "--budget", "small", "--prompt", "héllo", "--max-new", 5)
    piped = run_here(demo_bundle, "--budget", "small", "--prompt", "-", "--max-new", 5, data="héllo".encode())
    assert given.stdout == piped.stdout != ""


def test_ids_end_where_text_ends(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tokenizer, and past it where the end is to be ignored."""

    def none(folder: Path) -> None:
        raise AssertionError("ids go without a tokenizer")

    monkeypatch.setattr(modes, "Tokenizer", none)
    arguments = (demo_bundle, "--budget", "small", "--ids", "1,2", "--max-new", 6)
    every = run_here(*arguments, "--ignore-eos").stdout.split()
    assert len(every) == 6
    end = int(every[2])
    asked: list[Any] = []

    def ends(folder: Path, vocab_size: int) -> tuple[int, ...]:
        asked.append((folder, vocab_size))
        return (end,)

    monkeypatch.setattr(modes, "stop_ids", ends)
    assert run_here(*arguments).stdout.split() == every[: every.index(str(end)) + 1]
    assert run_here(*arguments, "--ignore-eos").stdout.split() == every
    assert asked == [(demo_bundle, 264)]


def test_ids_may_be_printed_of_a_text(demo_bundle: Path) -> None:
    common = (demo_bundle, "--budget", "small", "--max-new", 6, "--ignore-eos")
    text = run_here(*common, "--prompt", "Hello", "--print-ids")
    assert text.stdout == run_here(*common, "--ids", ",".join(map(str, b"Hello"))).stdout
    assert len(text.stdout.split()) == 6


def test_a_token_that_is_named_ends_it_in_place_of_the_bundles(demo_bundle: Path) -> None:
    common = (demo_bundle, "--budget", "small", "--ids", "1,2", "--max-new", 6)
    every = run_here(*common, "--ignore-eos").stdout.split()
    end = every[2]
    wanted = every[: every.index(end) + 1]
    for arguments in (("--stop-id", end), ("--stop-id", 0, "--stop-id", end, "--ignore-eos")):
        assert run_here(*common, *arguments).stdout.split() == wanted


def test_every_file_may_be_read_first(demo_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo_bundle, copy)
    file = max((copy / "weights").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    assert len(data) > 1 << 20  # smaller ones are read whenever a bundle is opened
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(data)
    arguments = (copy, "--budget", "small", "--ids", "1", "--max-new", 1)
    assert run_here(*arguments).returncode == 0
    done = run_here(*arguments, "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file.name}: expected sha256 " in done.stderr


def test_samples_by_seed(demo_bundle: Path) -> None:
    drawn = [
        run_here(
            demo_bundle, "--ids", "1,2", "--temperature", 2, "--top-k", 50, "--top-p", 0.9, "--seed", s, "--max-new", 6
        )
        for s in (5, 5, 6)
    ]
    assert drawn[0].stdout == drawn[1].stdout != drawn[2].stdout


def test_explains_the_choice(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--vram", "12GiB", "--explain")
    assert done.returncode == 0
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[1:]] == ["large", "medium", "small"]
    assert done.stdout.splitlines()[1].endswith(": chosen")


def test_json_says_what_was_generated_by_what_and_the_warnings(demo_bundle: Path) -> None:
    arguments = (
        demo_bundle,
        "--budget",
        "small",
        "--prompt",
        "Hello",
        "--max-new",
        3,
        "--ignore-eos",
        "--device",
        "auto",
    )
    streamed, done = run_here(*arguments), run_here(*arguments, "--json")
    found = json.loads(done.stdout)
    assert found["text"] + "\n" == streamed.stdout
    assert (len(found["ids"]), found["finish"]) == (3, "length")
    assert (found["budget"], found["backend"], found["device"]) == ("small", "onnxruntime", "cpu")
    assert found["warnings"] == done.stderr.splitlines()
    assert found["warnings"]
    refused = run_here(demo_bundle, "--chat", "--json")
    assert (refused.returncode, refused.stderr) == (
        2, "error: --json: expected one answer, found --chat. Leave one of them out.\n",
    )  # fmt: skip


def test_stats_say_where_it_ran(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("H200", "9.0", 141 << 30, 100 << 30)
    monkeypatch.setattr(places, "find_card", lambda: card)
    monkeypatch.setattr(stats, "find_card", lambda: card)
    arguments = ("--budget", "small", "--prompt", "Hello", "--max-new", 4, "--context", 64, "--ignore-eos", "--stats")
    shown = {}
    with apart():
        for device in ("cpu", "gpu", "auto"):
            done = run_here(demo_bundle, *arguments, "--device", device)
            assert done.returncode == 0, done.stderr
            shown[device] = done
    assert shown["cpu"].stdout == shown["gpu"].stdout == shown["auto"].stdout
    for device in ("gpu", "auto"):
        assert "backend        onnxruntime on the card, budget small\n" in shown[device].stderr
        assert re.search(r"memory +weights on the card \S+ GiB, states on the card ", shown[device].stderr)
        assert "card           41.0 of 141.0 GiB of H200 in use" in shown[device].stderr
    assert "backend        onnxruntime, budget small\n" in shown["cpu"].stderr
    assert "the card" not in shown["cpu"].stderr
    assert "H200" not in shown["cpu"].stderr


def test_verifies_with_plugins_and_refuses_a_needless_folder_of_weights(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def verified(*_: object, **wishes: Any) -> Verified:
        asked.append(wishes["plugins"])
        return Verified("b", 1, (), ())

    done = run_here(demo_bundle, "--ids", "1", "--weights-folder", tmp_path)
    assert (done.returncode, "holds its weights, found one. Leave it out." in done.stderr) == (2, True)
    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.verify_bundle", verified)
    done = run_here(demo_bundle, "--verify", "--plugins", tmp_path)
    assert (asked, done.stdout.splitlines()[-1]) == ([tmp_path], "digests hold; nothing was replayed")


def test_says_its_version(demo_bundle: Path) -> None:
    done = run_here("--version")
    assert (done.returncode, done.stdout) == (0, f"elastic-run, version {elastic_runtime.__version__}\n")


def test_a_bring_up_is_told_where_the_weights_are(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def tried(path: Path, out: Path, **wishes: Any) -> list[Any]:
        asked.append(wishes["external"])
        out.with_suffix("").mkdir()
        (out.with_suffix("") / "summary.txt").write_text("a page\n")
        return []

    monkeypatch.setattr("elastic_runtime.bringup.bring_up.bring_up", tried)
    out = tmp_path / "r.zip"
    given = [str(demo_bundle), "--bring-up", "--weights-folder", str(tmp_path), "--report", str(out), "--debug"]
    run.command.main(given, standalone_mode=False)
    assert asked == [tmp_path]
