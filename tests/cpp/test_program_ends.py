"""How elastic_generate ends before its work is done: by a reader that is gone, by Ctrl-C, by a full disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ENDLESS = ("--ids", "1", "--max-new", "100000", "--ignore-eos", "--context", "100000", "--print-ids")


def test_text_comes_while_it_is_made(small: tuple[object, ...]) -> None:
    options = [option for option in ENDLESS if option != "--print-ids"]
    command = [str(part) for part in (*small, *options, "--temperature", 1)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 130


def _heard(process: subprocess.Popen[str], later: float = 0) -> None:
    """Wait until the program handles SIGINT itself, and `later` seconds more, then send it one."""
    status, deadline = Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    while time.monotonic() < deadline:
        caught = int(next(line for line in status.read_text().splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if caught >> (signal.SIGINT - 1) & 1:
            break
        time.sleep(0.01)
    time.sleep(later)
    process.send_signal(signal.SIGINT)


def _said(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()  # one that did not hear must not outlive the test


def _piped(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_is_gone_ends_it_as_sigpipe_does(small: tuple[object, ...]) -> None:
    process = _piped(*small, *ENDLESS)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (141, "")
    process.stderr.close()


def test_an_interrupt_ends_it_between_two_tokens(small: tuple[object, ...]) -> None:
    with _piped(*small, *ENDLESS) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert (process.wait(60), process.stderr.read()) == (130, "")


def test_an_interrupt_ends_a_long_prompt(small: tuple[object, ...]) -> None:
    ids = ",".join(["1"] * 60_000)  # fed one by one: far longer than it takes to interrupt
    with _piped(*small, "--ids", ids, "--max-tokens", 1, "--context", 100_000, "--print-ids") as process:
        _heard(process, later=4)  # by then the model is loaded
        said = _said(process)
        assert (process.returncode, *said) == (130, "", "")


def test_an_interrupt_ends_a_check_of_a_large_file(program: Path, demo_bundle: Path, tmp_path: Path) -> None:
    from elastic_runtime.format.seal import EMPTY, seal

    manifest = json.loads((demo_bundle / "manifest.json").read_text("utf-8")) | {"seal": EMPTY}
    copy = tmp_path / "bundle"
    shutil.copytree(demo_bundle, copy)
    with (copy / "large.bin").open("wb") as file:
        file.truncate(1 << 40)  # sparse: a day of reading
    manifest["files"].insert(0, {"path": "large.bin", "size": 1 << 40, "sha256": "0" * 64})
    (copy / "manifest.json").write_text(seal(json.dumps(manifest)), "utf-8")
    with _piped(program, copy, "--check", "--explain", "--vram", "1GiB") as process:
        _heard(process)
        said = _said(process)
        assert (process.returncode, *said) == (130, "", "")


def test_a_second_interrupt_ends_what_polls_nothing(small: tuple[object, ...]) -> None:
    """Here a write that waits for its reader."""
    import fcntl
    import struct
    import termios

    with _piped(*small, *ENDLESS, "--context", 4096) as process:
        assert process.stdout is not None
        size = fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        held = 0
        while held < size - 8:
            held = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))[0]
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == -signal.SIGINT
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_cannot_be_written_is_an_error(
    program: Path, demo_bundle: Path, small: tuple[object, ...]
) -> None:
    full = "elastic_generate: standard output: expected it to be written, found No space left on device.\n"
    for command in (
        (program, demo_bundle, "--explain", "--vram", "1GiB"),
        (program, demo_bundle, "--budget", "small", "--weights-digest"),
        (program, "--help"),
        (*small, "--ids", "1", "--max-new", 2),
    ):
        with open("/dev/full", "wb") as sink:
            done = subprocess.run(
                [str(c) for c in command], stdout=sink, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (done.returncode, done.stderr) == (1, full), command


def test_a_reader_that_is_gone_before_the_first_word(program: Path, demo_bundle: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([program, demo_bundle, "--explain", "--vram", "1GiB"], stdout=write, check=False)
    os.close(write)
    assert done.returncode == 141
