"""Conversations with `elastic-run --chat`: turns, budgets that change, answers that end early."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.cli import chat, modes
from elastic_runtime.cli.options import template_arguments
from elastic_runtime.errors import BuildError
from elastic_runtime.opening import loading
from run_command import run_here


def test_converses_and_switches_budgets(demo_bundle: Path) -> None:
    turns = b"hi\n/budget medium\n\nho\n/budget huge\n"
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 6, data=turns)
    assert done.returncode == 0
    assert "medium: opened in" in done.stderr
    assert "tokens fed again in" in done.stderr
    assert "error: budget 'huge': expected one of large, medium, small" in done.stderr
    first = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 6, data=b"hi\n")
    assert first.stdout != ""
    assert done.stdout.startswith(first.stdout)
    assert len(done.stdout) > len(first.stdout)


def test_chat_says_how_fast_each_answer_came(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--chat", "--stats", "--budget", "small", "--max-new", 4, data=b"hi\nho\n")
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
    done = run_here(demo_bundle, *arguments, data=b"hi\nho\nha\n")
    assert re.findall(r"tokens/s, (\d+) tokens", done.stderr) == ["4", "4"]
    assert done.stderr.count("open  ") == 1  # with the first answer there is


@pytest.mark.usefixtures("large_fails")
def test_a_chat_survives_a_turn_and_a_switch_that_fail(demo_bundle: Path) -> None:
    arguments = (demo_bundle, "--chat", "--budget", "small", "--context", 64, "--max-new", 4)
    plain = run_here(*arguments, data=b"hi\nho\n")
    done = run_here(*arguments, data=b"hi\n/budget large\n" + b"x" * 100 + b"\nho\n")
    assert "error: large: expected luck, found none." in done.stderr
    assert "error: sequence: expected at most 64 tokens" in done.stderr
    assert (done.returncode, done.stdout) == (0, plain.stdout)


def test_a_chat_without_one_answer_ends_with_its_error(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--context", 64, data=b"x" * 100 + b"\n")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_chat_whose_session_is_lost_ends(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, times = loading.open_onnx, iter(range(9))

    def once(*given: Any, **rest: Any) -> Any:
        if next(times):
            raise BuildError("model", expected="luck", found="none")
        return opened(*given, **rest)

    monkeypatch.setattr(loading, "open_onnx", once)
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 4, data=b"hi\n/budget large\nho\n")
    assert done.returncode == 1
    assert "error: switch of budgets: expected budget 'small' to open again, found model" in done.stderr


def test_a_conversation_has_a_system_prompt_and_arguments(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    ours = chat.Tokenizer.render

    def render(self: Any, messages: Any, **options: Any) -> str:
        seen.append(([dict(m) for m in messages], options["arguments"]))
        return ours(self, messages, **options)

    monkeypatch.setattr(chat.Tokenizer, "render", render)
    arguments = ("--template-arg", "enable_thinking=false", "--template-arg", "effort=low")
    done = run_here(
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
        done = run_here(demo_bundle, *arguments, "--budget", "small", "--context", 40, "--ignore-eos", data=data)
        assert done.returncode == 0
        assert "cut at the end of the context of 40 tokens; --context allows more" in done.stderr
        assert "cut" not in done.stdout


def test_an_answer_that_was_cut_is_said_to_be(demo_bundle: Path) -> None:
    for arguments, data in ((("--prompt", "a"), b""), (("--chat",), b"a\n")):
        done = run_here(demo_bundle, *arguments, "--budget", "small", "--max-new", 2, "--ignore-eos", data=data)
        assert "cut after 2 tokens; --max-new allows more" in done.stderr
        assert "cut" not in done.stdout


def test_only_the_word_itself_switches_budgets(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"/budgetary review please\n")
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert done.stdout


def test_help_is_no_turn(demo_bundle: Path) -> None:
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"/help\n")
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
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 30, "--ignore-eos", data=b"hi\nho\n")
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
    done = run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 30, "--ignore-eos", data=b"hi\nho\n")
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
    run_here(demo_bundle, "--chat", "--budget", "small", "--max-new", 2, data=b"hi\nho\n")
    assert seen[-1][1] == {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}
