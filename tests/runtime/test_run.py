"""`elastic-run` as a user meets it: what it prints where, its exit codes, and how it ends when it is interrupted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from elastic_runtime.run import main

COMMAND = [sys.executable, "-m", "elastic_runtime.run"]


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
        patch.setattr(sys, "argv", ["elastic-run", "--threads", "1", *map(str, arguments)])
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
            "error: budget 'huge': expected one of large, medium, small, found",
        ),
        (["--vram", "0", "--explain"], 2, "error: --vram: expected a size such as 12GiB or 16GB, above 0, found '0'."),
        (["--vram", "12 parsecs", "--explain"], 2, "error: --vram: expected a size"),
        (
            ["--vram", "1MiB", "--prompt", "x"],
            1,
            "error: bundle: expected a budget that fits, found none. See:\n0.00",
        ),
        (["--prompt", "x", "--context", "0"], 2, "error: context: expected at least 1, found 0."),
        (["--prompt", "hello", "--context", "3"], 2, "error: prompt: expected at most 3 tokens, the context, found 5."),
        (["--ids", "264"], 2, "error: token ids: expected 0 to 263, found 264."),
        (["--ids", "99999999999999999999"], 2, "error: token ids"),
        (["--ids", "1,x"], 2, "error: --ids: expected integers divided by commas, found 1,x."),
        (["--prompt", ""], 2, "error: prompt: expected at least one token, found none."),
        (["--prompt", "a\udcff"], 2, "error: prompt: expected valid UTF-8, found an invalid byte at 1."),
        (["--prompt", "x", "--temperature", "-1"], 2, "error: temperature: expected a number from 0, found -1.0."),
        (["--prompt", "x", "--top-p", "0"], 2, "error: top_p: expected a number above 0, up to 1, found 0.0."),
        (["--prompt", "x", "--seed", "-1"], 2, "error: seed: expected 0 to 2^64 - 1, found -1."),
        (["--prompt", "x", "--stop", ""], 2, "error: stop: expected texts of at least one character"),
        ([], 2, "error: request: expected one of --prompt, --ids and --chat, found none."),
        (["--prompt", "x", "--chat"], 2, "expected one of --prompt, --ids and --chat, found --prompt and --chat."),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_says_what_is_wrong(demo_bundle: Path, arguments: list[str], code: int, text: str) -> None:
    done = _run(demo_bundle, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_no_card_is_a_clear_message(demo_bundle: Path) -> None:
    from elastic_runtime.memory import find_card

    if find_card():
        pytest.skip("there is a card here")
    done = _run(demo_bundle, "--explain")
    assert done.returncode == 2
    assert "error: GPU memory: expected an NVIDIA driver that says how much is free, found no libnvidia" in done.stderr
    done = _run(demo_bundle, "--prompt", "x", "--backend", "tensorrt-rtx")
    assert done.returncode == 2
    assert "no NVIDIA card here: running on the CPU" in _run(demo_bundle, "--ids", "1", "--max-new", 1).stderr


def test_invalid_utf8_on_standard_input(demo_bundle: Path) -> None:
    done = _run(demo_bundle, "--prompt", "-", data=b"ab\xff")
    assert (done.returncode, "standard input: expected UTF-8, found an invalid byte at 2" in done.stderr) == (2, True)
    done = _run(demo_bundle, "--chat", "--budget", "small", data=b"ab\xff\n")
    assert (done.returncode, "expected" in done.stderr) == (2, True)


def test_no_bundle(tmp_path: Path) -> None:
    done = _run(tmp_path, "--prompt", "x")
    assert done.returncode == 2
    assert "expected a bundle with a manifest.json" in done.stderr


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
    assert done.stderr.decode().splitlines()[-1] == "error: prompt: expected valid UTF-8, found an invalid byte at 1."


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
