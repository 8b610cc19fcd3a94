"""`elastic-run` as a user meets it: what it prints where, its exit codes, and how it ends when it is interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import elastic_runtime
from card_memory import apart
from elastic_runtime.cli import chat, modes, run, stats
from elastic_runtime.cli.options import template_arguments
from elastic_runtime.cli.run import main
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import BuildError, InternalError
from elastic_runtime.opening import Opener, loading, places
from elastic_runtime.verify.verified import Verified

COMMAND = [sys.executable, "-m", "elastic_runtime.cli.run"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def _run(*arguments: object, data: bytes = b"") -> Done:
    """The command in this process: starting another one costs a second."""
    out, err, given = (
        io.TextIOWrapper(io.BytesIO(), "utf-8"),
        io.StringIO(),
        io.TextIOWrapper(io.BytesIO(data), "utf-8"),
    )
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        threads = () if {"--bring-up", "--verify"} & set(arguments) else ("--threads", "1")
        patch.setattr(sys, "argv", ["elastic-run", *threads, *map(str, arguments)])
        patch.setattr(sys, "stdin", given)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    out.flush()
    return Done(code, out.buffer.getvalue().decode("utf-8"), err.getvalue())


def test_streams_text_and_says_how_fast(demo_bundle: Path) -> None:
    arguments = ("--budget", "small", "--prompt", "Hello", "--max-new", 8, "--ignore-eos", "--stats")
    done = _run(demo_bundle, "--backend", "onnxruntime", *arguments)
    assert done.returncode == 0
    assert done.stdout.endswith("\n")
    lines = dict(line.split(maxsplit=1) for line in done.stderr.splitlines())
    assert lines["backend"] == "onnxruntime, budget small"
    assert "for a prompt of 5" in lines["first"]
    assert "tokens/s, 8 tokens" in lines["then"]
    assert "weights" in lines["memory"]
    assert "GeForce RTX 5080" in lines["card's"]
    again = _run(demo_bundle, *arguments[:-1])
    assert again.stdout == done.stdout


def test_reads_the_prompt_from_standard_input(demo_bundle: Path) -> None:
    given = _run(demo_bundle, "--budget", "small", "--prompt", "héllo", "--max-new", 5)
    piped = _run(demo_bundle, "--budget", "small", "--prompt", "-", "--max-new", 5, data="héllo".encode())
    assert given.stdout == piped.stdout != ""


def test_ids_end_where_text_ends(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a tokenizer, and past it where the end is to be ignored."""

    def none(folder: Path) -> None:
        raise AssertionError("ids go without a tokenizer")

    monkeypatch.setattr(modes, "Tokenizer", none)
    arguments = (demo_bundle, "--budget", "small", "--ids", "1,2", "--max-new", 6)
    every = _run(*arguments, "--ignore-eos").stdout.split()
    assert len(every) == 6
    end = int(every[2])
    asked: list[Any] = []

    def ends(folder: Path, vocab_size: int) -> tuple[int, ...]:
        asked.append((folder, vocab_size))
        return (end,)

    monkeypatch.setattr(modes, "stop_ids", ends)
    assert _run(*arguments).stdout.split() == every[: every.index(str(end)) + 1]
    assert _run(*arguments, "--ignore-eos").stdout.split() == every
    assert asked == [(demo_bundle, 264)]


def test_ids_may_be_printed_of_a_text(demo_bundle: Path) -> None:
    common = (demo_bundle, "--budget", "small", "--max-new", 6, "--ignore-eos")
    text = _run(*common, "--prompt", "Hello", "--print-ids")
    assert text.stdout == _run(*common, "--ids", ",".join(map(str, b"Hello"))).stdout
    assert len(text.stdout.split()) == 6


def test_a_token_that_is_named_ends_it_in_place_of_the_bundles(demo_bundle: Path) -> None:
    common = (demo_bundle, "--budget", "small", "--ids", "1,2", "--max-new", 6)
    every = _run(*common, "--ignore-eos").stdout.split()
    end = every[2]
    wanted = every[: every.index(end) + 1]
    for arguments in (("--stop-id", end), ("--stop-id", 0, "--stop-id", end, "--ignore-eos")):
        assert _run(*common, *arguments).stdout.split() == wanted


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
    assert _run(*arguments).returncode == 0
    done = _run(*arguments, "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file.name}: expected sha256 " in done.stderr


def test_samples_by_seed(demo_bundle: Path) -> None:
    drawn = [
        _run(
            demo_bundle, "--ids", "1,2", "--temperature", 2, "--top-k", 50, "--top-p", 0.9, "--seed", s, "--max-new", 6
        )
        for s in (5, 5, 6)
    ]
    assert drawn[0].stdout == drawn[1].stdout != drawn[2].stdout


def test_converses_and_switches_budgets(demo_bundle: Path) -> None:
    turns = b"hi\n/budget medium\n\nho\n/budget huge\n"
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 6, data=turns)
    assert done.returncode == 0
    assert "medium: opened in" in done.stderr
    assert "tokens fed again in" in done.stderr
    assert "error: budget 'huge': expected one of large, medium, small" in done.stderr
    first = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 6, data=b"hi\n")
    assert first.stdout != ""
    assert done.stdout.startswith(first.stdout)
    assert len(done.stdout) > len(first.stdout)


def test_explains_the_choice(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--vram", "12GiB", "--explain")
    assert done.returncode == 0
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[1:]] == ["large", "medium", "small"]
    assert done.stdout.splitlines()[1].endswith(": chosen")


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
    done = _run(demo_bundle, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_a_card_that_is_not_there_for_onnxruntime_is_a_clear_message(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "find_card", lambda: None)
    for backend in ("auto", "onnxruntime"):
        done = _run(demo_bundle, "--prompt", "x", "--device", "gpu", "--backend", backend)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: onnxruntime on a card: expected a CUDA execution provider that works, ")
        assert "found no NVIDIA card. Pip install 'onnxruntime-gpu[cuda,cudnn]'" in done.stderr
    done = _run(demo_bundle, "--prompt", "x", "--device", "cpu", "--backend", "tensorrt-rtx")
    assert done.returncode == 2
    assert "error: device: expected auto or gpu for the backend tensorrt-rtx, found cpu." in done.stderr


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
    streamed, done = _run(*arguments), _run(*arguments, "--json")
    found = json.loads(done.stdout)
    assert found["text"] + "\n" == streamed.stdout
    assert (len(found["ids"]), found["finish"]) == (3, "length")
    assert (found["budget"], found["backend"], found["device"]) == ("small", "onnxruntime", "cpu")
    assert found["warnings"] == done.stderr.splitlines()
    assert found["warnings"]
    refused = _run(demo_bundle, "--chat", "--json")
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
            done = _run(demo_bundle, *arguments, "--device", device)
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


def test_no_card_is_a_clear_message(demo_bundle: Path) -> None:
    from elastic_runtime.driver.free_memory import find_card

    if find_card():
        pytest.skip("there is a card here")
    done = _run(demo_bundle, "--explain")
    assert done.returncode == 2
    assert "error: GPU memory: expected an NVIDIA driver that says how much is free, found no libnvidia" in done.stderr
    done = _run(demo_bundle, "--prompt", "x", "--backend", "tensorrt-rtx")
    assert (done.returncode, "Name it" in done.stderr) == (1, False)
    assert "no NVIDIA card here: running on the CPU" in _run(demo_bundle, "--ids", "1", "--max-new", 1).stderr


def test_invalid_utf8_on_standard_input(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--prompt", "-", data=b"ab\xff")
    assert (done.returncode, "standard input: expected UTF-8, found an invalid byte at 2" in done.stderr) == (2, True)
    done = _run(demo_bundle, "--chat", "--budget", "small", data=b"ab\xff\n")
    assert (done.returncode, "expected" in done.stderr) == (2, True)


def test_chat_says_how_fast_each_answer_came(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--chat", "--stats", "--budget", "small", "--max-new", 4, data=b"hi\nho\n")
    assert done.returncode == 0
    starts = [line.split()[0] for line in done.stderr.splitlines()]
    assert [starts.count(what) for what in ("backend", "open", "first", "memory", "process")] == [2, 1, 2, 2, 2]
    assert "resident, mapped files included" in done.stderr


def test_a_turn_that_fails_leaves_nothing_in_the_statistics_of_the_next(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, generate = iter(range(9)), chat.generate

    def failing(*given: Any) -> Any:
        number = next(turns)
        for count, piece in enumerate(generate(*given)):
            yield piece
            if not number and count == 1:
                raise BuildError("onnxruntime", expected="the call to succeed", found="none")

    monkeypatch.setattr(chat, "generate", failing)
    arguments = ("--chat", "--stats", "--budget", "small", "--max-new", 4, "--ignore-eos")
    done = _run(demo_bundle, *arguments, data=b"hi\nho\nha\n")
    assert re.findall(r"tokens/s, (\d+) tokens", done.stderr) == ["4", "4"]
    assert done.stderr.count("open  ") == 1  # with the first answer there is


@pytest.mark.usefixtures("large_fails")
def test_a_chat_survives_a_turn_and_a_switch_that_fail(demo_bundle: Path) -> None:
    arguments = (demo_bundle, "--chat", "--budget", "small", "--context", 64, "--max-new", 4)
    plain = _run(*arguments, data=b"hi\nho\n")
    done = _run(*arguments, data=b"hi\n/budget large\n" + b"x" * 100 + b"\nho\n")
    assert "error: large: expected luck, found none." in done.stderr
    assert "error: sequence: expected at most 64 tokens" in done.stderr
    assert (done.returncode, done.stdout) == (0, plain.stdout)


def test_a_chat_without_one_answer_ends_with_its_error(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--chat", "--budget", "small", "--context", 64, data=b"x" * 100 + b"\n")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_chat_whose_session_is_lost_ends(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, times = loading.open_onnx, iter(range(9))

    def once(*given: Any, **rest: Any) -> Any:
        if next(times):
            raise BuildError("model", expected="luck", found="none")
        return opened(*given, **rest)

    monkeypatch.setattr(loading, "open_onnx", once)
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 4, data=b"hi\n/budget large\nho\n")
    assert done.returncode == 1
    assert "error: switch of budgets: expected budget 'small' to open again, found model" in done.stderr


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
    done = _run(demo_bundle, "--ids", "1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith(text)
    assert "Traceback" in _run(demo_bundle, "--ids", "1", "--debug").stderr


def test_the_code_of_an_internal_error_is_documented(demo_bundle: Path) -> None:
    assert "70 an internal error, to be reported" in " ".join(_run("--help").stdout.split())
    page = (Path(__file__).parents[3] / "engines/README.md").read_text("utf-8")
    assert "| 70 | | `elastic-run`: an error of its own" in page


def test_numbers_beyond_all_bounds(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--ids", "1", "--context", "1" + "0" * 400)
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


def test_verifies_with_plugins_and_refuses_a_needless_folder_of_weights(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def verified(*_: object, **wishes: Any) -> Verified:
        asked.append(wishes["plugins"])
        return Verified("b", 1, (), ())

    done = _run(demo_bundle, "--ids", "1", "--weights-folder", tmp_path)
    assert (done.returncode, "holds its weights, found one. Leave it out." in done.stderr) == (2, True)
    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.verify_bundle", verified)
    done = _run(demo_bundle, "--verify", "--plugins", tmp_path)
    assert (asked, done.stdout.splitlines()[-1]) == ([tmp_path], "digests hold; nothing was replayed")


def test_no_bundle(tmp_path: Path) -> None:
    done = _run(tmp_path, "--prompt", "x")
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


# --------------------------------------------------------------------------------------------------- conversations


def test_says_its_version(demo_bundle: Path) -> None:
    done = _run("--version")
    assert (done.returncode, done.stdout) == (0, f"elastic-run, version {elastic_runtime.__version__}\n")


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
    done = _run(demo_bundle, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")  # the first line: not even the device was named
    assert text in done.stderr


def test_a_conversation_has_a_system_prompt_and_arguments(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    ours = chat.Tokenizer.render

    def render(self: Any, messages: Any, **options: Any) -> str:
        seen.append(([dict(m) for m in messages], options["arguments"]))
        return ours(self, messages, **options)

    monkeypatch.setattr(chat.Tokenizer, "render", render)
    arguments = ("--template-arg", "enable_thinking=false", "--template-arg", "effort=low")
    done = _run(
        demo_bundle, "--chat", "--budget", "small", "--max-new", 3, "--system", "/no_think", *arguments, data=b"hi\n"
    )
    assert done.returncode == 0
    system = {"role": "system", "content": "/no_think"}
    assert [messages for messages, _ in seen][1] == [system, {"role": "user", "content": "hi"}]
    assert {json.dumps(given) for _, given in seen} == {'{"enable_thinking": false, "effort": "low"}'}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a=1", 1),
        ("a= [1, {}] ", [1, {}]),
        ("a=low", "low"),
        ('a=1, "b": 2', '1, "b": 2'),
        ('a=1, "value": 2', '1, "value": 2'),
        ("a=1}", "1}"),
        ("a=", ""),
    ],
)
def test_an_argument_of_the_template_is_one_value_or_a_text(given: str, expected: object) -> None:
    assert template_arguments([given]) == {"a": expected}


def test_an_answer_that_fills_the_context_is_said_to_be_cut(demo_bundle: Path) -> None:
    for arguments, data in ((("--prompt", "a"), b""), (("--chat",), b"a\n")):
        done = _run(demo_bundle, *arguments, "--budget", "small", "--context", 40, "--ignore-eos", data=data)
        assert done.returncode == 0
        assert "cut at the end of the context of 40 tokens; --context allows more" in done.stderr
        assert "cut" not in done.stdout


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


def test_an_answer_that_was_cut_is_said_to_be(demo_bundle: Path) -> None:
    for arguments, data in ((("--prompt", "a"), b""), (("--chat",), b"a\n")):
        done = _run(demo_bundle, *arguments, "--budget", "small", "--max-new", 2, "--ignore-eos", data=data)
        assert "cut after 2 tokens; --max-new allows more" in done.stderr
        assert "cut" not in done.stdout


def test_only_the_word_itself_switches_budgets(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"/budgetary review please\n")
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert done.stdout


def test_help_is_no_turn(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"/help\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert "/budget NAME" in done.stderr
    assert "> " not in done.stderr  # nobody sits there


def test_ctrl_c_ends_an_answer_and_not_the_conversation(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(piece: Any) -> None:
        written.append(piece.text)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(modes, "write_text", write)
    before = signal.getsignal(signal.SIGINT)
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 30, "--ignore-eos", data=b"hi\nho\n")
    assert done.returncode == 0
    assert written[3] == "\n"  # the end of the first answer, after three tokens
    assert len(written) == 3 + 1 + 30 + 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_prompt_is_fed_does_not_end_the_conversation(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, interrupted = chat.Prefix.advance, [True, False]

    def interrupt(prefix: Any, *given: Any) -> Any:
        if interrupted.pop(0):
            os.kill(os.getpid(), signal.SIGINT)
        return advance(prefix, *given)

    monkeypatch.setattr(chat.Prefix, "advance", interrupt)
    done = _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 30, "--ignore-eos", data=b"hi\nho\n")
    assert done.returncode == 0
    assert interrupted == []  # the second turn came


def test_reasoning_is_kept_apart_of_what_was_said(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, texts = chat.generate, iter(["<think>hm</think>Yes.", "No."])
    seen: list[list[Any]] = []

    def generate(*arguments: Any) -> Any:
        text = next(texts)
        for number, piece in enumerate(ours(*arguments)):
            yield replace(piece, text=text if number == 0 else "")

    render = chat.Tokenizer.render
    monkeypatch.setattr(chat, "generate", generate)
    monkeypatch.setattr(
        chat.Tokenizer, "render", lambda self, m, **o: (seen.append([dict(x) for x in m]), render(self, m, **o))[1]
    )
    _run(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"hi\nho\n")
    assert seen[-1][1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
