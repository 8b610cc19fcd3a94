"""What `elastic-run` refuses, its exit codes, and how it ends when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from elastic_runtime.errors import InternalError
from elastic_runtime.opening import Opener, places
from run_command import COMMAND, run_here


def interrupted_import() -> ImportError:
    """What pybind11 makes of Ctrl-C in a module that is being imported."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["--prompt", "x", "--budget", "huge"],
            2,
            "error: budget 'huge': expected one of large, medium, small, found no such budget in the bundle. Name",
        ),
        (
            ["--vram", "0", "--explain"],
            2,
            "error: --vram: expected a size such as 12GiB or 16GB, above 0, found '0'. Leave --vr",
        ),
        (["--vram", "12 parsecs", "--explain"], 2, "error: --vram: expected a size"),
        (
            ["--vram", "1MiB", "--prompt", "x"],
            1,
            "error: bundle: expected a budget that fits, found none. See:\n0.00",
        ),
        (["--prompt", "x", "--context", "0"], 2, "error: context: expected at least 1, found 0. Name a larger one."),
        (["--prompt", "hello", "--context", "3"], 2, "error: prompt: expected at most 3 tokens, the context, found 5."),
        (["--ids", "264"], 2, "error: token ids: expected 0 to 263, found 264. Encode the text"),
        (["--ids", "99999999999999999999"], 2, "error: token ids"),
        (
            ["--ids", "1,x"],
            2,
            "error: --ids: expected integers divided by commas, found 1,x. Write them as in --ids 1,2,3.",
        ),
        (["--prompt", ""], 2, "error: prompt: expected at least one token, found none. Begin with some text"),
        (["--prompt", "a\udcff"], 2, "error: prompt: expected valid UTF-8, found an invalid byte at 1."),
        (
            ["--prompt", "x", "--temperature", "-1"],
            2,
            "error: temperature: expected a number from 0, found -1.0. Give 0",
        ),
        (["--prompt", "x", "--top-p", "0"], 2, "error: top_p: expected a number above 0, up to 1, found 0.0. Give 1"),
        (["--prompt", "x", "--seed", "-1"], 2, "error: seed: expected 0 to 2^64 - 1, found -1. Give another."),
        (
            ["--prompt", "x", "--stop", ""],
            2,
            "error: stop: expected texts of at least one character, found an empty one. Leave it out.",
        ),
        (
            [],
            2,
            "error: request: expected one of --prompt, --ids and --chat, found none. Give one, as in --prompt Hello.",
        ),
        (["--prompt", "x", "--chat"], 2, "expected one of --prompt, --ids and --chat, found --prompt and --chat."),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_says_what_is_wrong(demo_bundle: Path, arguments: list[str], code: int, text: str) -> None:
    done = run_here(demo_bundle, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_card_that_is_not_there_for_onnxruntime_is_a_clear_message(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "find_card", lambda: None)
    for backend in ("auto", "onnxruntime"):
        done = run_here(demo_bundle, "--prompt", "x", "--device", "gpu", "--backend", backend)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: onnxruntime on a card: expected a CUDA execution provider that works, ")
        assert "found no NVIDIA card. Pip install 'onnxruntime-gpu[cuda,cudnn]'" in done.stderr
    done = run_here(demo_bundle, "--prompt", "x", "--device", "cpu", "--backend", "tensorrt-rtx")
    assert done.returncode == 2
    assert "error: device: expected auto or gpu for the backend tensorrt-rtx, found cpu." in done.stderr


def test_no_card_is_a_clear_message(demo_bundle: Path) -> None:
    from elastic_runtime.driver.free_memory import find_card

    if find_card():
        pytest.skip("there is a card here")
    done = run_here(demo_bundle, "--explain")
    assert done.returncode == 2
    assert "error: GPU memory: expected an NVIDIA driver that says how much is free, found no libnvidia" in done.stderr
    done = run_here(demo_bundle, "--prompt", "x", "--backend", "tensorrt-rtx")
    assert (done.returncode, "Name it" in done.stderr) == (1, False)
    assert "no NVIDIA card here: running on the CPU" in run_here(demo_bundle, "--ids", "1", "--max-new", 1).stderr


def test_invalid_utf8_on_standard_input(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--prompt", "-", data=b"ab\xff")
    assert (done.returncode, "standard input: expected UTF-8, found an invalid byte at 2" in done.stderr) == (2, True)
    done = run_here(demo_bundle, "--chat", "--budget", "small", data=b"ab\xff\n")
    assert (done.returncode, "expected" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ZeroDivisionError("one\ntwo \x1b[2J"), 70, "internal error: ZeroDivisionError: one two \\x1b[2J. Run again"),
        (
            InternalError("x", expected="a", found="b"),
            70,
            "internal error: x: expected a, found b. Run again with --d",
        ),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: a/b: expected a usable file, found Permission de"),
        (
            FileNotFoundError(2, "No such file", "a/b"),
            70,
            "internal error: FileNotFoundError: [Errno 2] No such file: ",
        ),
        (interrupted_import(), 130, ""),
        (MemoryError(), 1, "error: memory: expected enough for this, found none left."),
        (OSError(27, "File too large", "a/b"), 1, "error: a/b: expected room to write, found File too large."),
        (OSError(28, "No space left on device"), 1, "error: standard output: expected room to write, found No space"),
    ],
)
def test_whatever_goes_wrong_is_one_line(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("elastic_runtime.cli.modes.Bundle.open", fail)
    done = run_here(demo_bundle, "--ids", "1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(text)
    assert "Traceback" in run_here(demo_bundle, "--ids", "1", "--debug").stderr


def test_the_code_of_an_internal_error_is_documented(demo_bundle: Path) -> None:
    assert "70 an internal error, to be reported" in " ".join(run_here("--help").stdout.split())
    page = (Path(__file__).parents[3] / "engines/README.md").read_text("utf-8")
    assert "| 70 | | `elastic-run`: an error of its own" in page


def test_numbers_beyond_all_bounds(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--ids", "1", "--context", "1" + "0" * 400)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: context: expected at most 9007199254740991, found more. Name a smaller one." in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "arguments", [("--ids", "1", "--max-new", "2"), ("--prompt", "a"), ("--explain", "--vram", "1GiB")]
)
def test_a_full_disk_behind_the_output(demo_bundle: Path, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, str(demo_bundle), "--backend", "onnxruntime", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"standard output: expected room to write, found No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_a_closed_output_is_said(demo_bundle: Path) -> None:
    command = [*COMMAND, str(demo_bundle), "--ids", "1"]
    shell = ["sh", "-c", '"$@" >&-', "sh", *command]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.decode() == "error: standard output: expected an open one, found a closed one. Use > /dev/null.\n"
    )


def test_no_bundle(tmp_path: Path) -> None:
    done = run_here(tmp_path, "--prompt", "x")
    assert done.returncode == 2
    told = f"error: {tmp_path}: expected a bundle, found no manifest.json in it."
    assert done.stderr == f"{told} Name the folder that elastic-export wrote.\n"


def _endless(demo_bundle: Path) -> subprocess.Popen[bytes]:
    arguments = [
        str(demo_bundle),
        "--budget",
        "small",
        "--prompt",
        "Hello",
        "--max-new",
        "1900",
        "--ignore-eos",
        "--threads",
        "1",
    ]
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_process_ends_with_the_code_of_its_error(demo_bundle: Path) -> None:
    done = subprocess.run([*COMMAND, str(demo_bundle), "--prompt", b"a\xff"], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == (
        "error: prompt: expected valid UTF-8, found an invalid byte at 1. Give the text in UTF-8."
    )


def test_a_closed_pipe_ends_quietly(demo_bundle: Path) -> None:
    process = _endless(demo_bundle)
    assert process.stdout
    assert process.stderr
    os.read(process.stdout.fileno(), 3)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_ctrl_c_ends_quietly(demo_bundle: Path) -> None:
    process = _endless(demo_bundle)
    assert process.stdout
    os.read(process.stdout.fileno(), 3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors


BEFORE = [
    (["--prompt", "x", "--max-new", "0"], "max_new: expected at least 1, found 0."),
    (["--prompt", "x", "--stop", ""], "stop: expected texts of at least one character"),
    (["--prompt", ""], "prompt: expected at least one token, found none."),
    (["--prompt", "hello", "--context", "3"], "prompt: expected at most 3 tokens, the context, found 5."),
    (["--prompt", "x" * 2049], "prompt: expected at most 2048 tokens, the context, found 2049."),
    (["--prompt", "x" * 2049, "--budget", "small"], "prompt: expected at most 2048 tokens, the context, found 2049."),
    (["--ids", ",".join(["1"] * 2049)], "prompt: expected at most 2048 tokens, the context, found 2049."),
    (["--ids", "264"], "token ids: expected 0 to 263, found 264."),
    (["--ids", "-1"], "token ids: expected 0 to 263, found -1."),
    (["--chat", "--print-ids"], "--print-ids: expected one answer, found --chat."),
    (["--ids", "1", "--stop-id", "264"], "stop token: expected an id from 0 to 263, found 264."),
    (["--prompt", "x", "--system", "s"], "--system: expected --chat beside it, found none."),
    (["--chat", "--template-arg", "thinking"], "--template-arg: expected NAME=JSON, found 'thinking'."),
    (["--chat", "--template-arg", "messages=3"], "messages: expected an argument of the template's own"),
    (["--verify", "--json"], "--verify: expected no --json beside it, found it."),
    (["--verify", "--prompt", "Hi"], "--verify: expected no --prompt beside it, found it."),
    (["--verify", "--minutes", "3"], "--verify: expected no --minutes beside it, found it."),
    (["--prompt", "Hi", "--minutes", "3"], "--minutes: expected --bring-up beside it, found none."),
    (["--prompt", "Hi", "--report", "r.zip"], "--report: expected --bring-up beside it, found none."),
    (["--prompt", "Hi", "--plugin-sources", "p"], "--plugin-sources: expected --bring-up beside it, found none."),
    (["--prompt", "Hi", "--require-engine"], "--require-engine: expected --verify beside it, found none."),
    (["--bring-up", "--require-engine"], "--bring-up: expected no --require-engine beside it, found it."),
    (["--verify", "--chat"], "--verify: expected no --chat beside it, found it."),
    (["--explain", "--verify"], "--verify: expected no --explain beside it, found it."),
    (["--bring-up", "--context", "64"], "--bring-up: expected no --context beside it, found it."),
    (["--bring-up", "--json"], "--bring-up: expected no --json beside it, found it."),
    (["--bring-up", "--verify"], "--bring-up: expected no --verify beside it, found it."),
    (["--chat", "--max-new", "0"], "max_new: expected at least 1, found 0."),
]


@pytest.mark.parametrize(("arguments", "text"), BEFORE, ids=[" ".join(arguments)[:60] for arguments, _ in BEFORE])
def test_no_model_is_loaded_for_a_typing_error(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.setattr(Opener, "open", lambda self: pytest.fail("a model was loaded"))
    done = run_here(demo_bundle, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")  # the first line: not even the device was named
    assert text in done.stderr
