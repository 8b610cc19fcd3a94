"""A conversation with a system prompt, thinking on and off, by a template of the family's kind: what is fed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from changed_bundle import only_small
from elastic_runtime.cli import chat
from elastic_runtime.cli.run import command

#: Reasoning begins inside the prompt, `enable_thinking` and `/no_think` in a system prompt switch it off, and what was
#: thought in earlier turns is left out: the three things that the family's published templates do.
TEMPLATE = (
    "{%- set ns = namespace(thinking=enable_thinking if enable_thinking is defined else true, system='') -%}"
    "{%- for m in messages if m.role == 'system' -%}{%- set ns.system = m.content -%}{%- endfor -%}"
    "{%- if '/no_think' in ns.system -%}{%- set ns.thinking = false -%}{%- endif -%}"
    "{{- '<|system|>' + ns.system.replace('/no_think', '').strip() + '<|end|>' -}}"
    "{%- for m in messages if m.role != 'system' -%}"
    "{{- '<|' + m.role + '|>' + m.content.split('</think>')[-1] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{{- '<|assistant|>' + ('<think>\n' if ns.thinking else '<think></think>') -}}"
)
START = "<|system|>Be brief.<|end|><|user|>hi<|end|><|assistant|>"


@pytest.fixture(scope="module")
def bundle(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("thinking") / "bundle"
    shutil.copytree(demo_bundle, copy)
    file = copy / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8")) | {"chat_template": TEMPLATE}
    file.unlink()
    file.write_text(json.dumps(config), "utf-8")
    only_small(copy)
    return copy


@pytest.fixture
def fed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The text that each turn was fed; the one before any model is loaded is left out."""
    ours = chat.Tokenizer.render

    def prompts(*arguments: str) -> list[str]:
        seen: list[str] = []

        def render(self: Any, messages: Any, **options: Any) -> str:
            seen.append(ours(self, messages, **options))
            return seen[-1]

        monkeypatch.setattr(chat.Tokenizer, "render", render)
        monkeypatch.setattr(chat, "lasting", lambda *_: 0)  # it renders turns that are not there
        given = [str(bundle), "--chat", "--threads", "1", "--max-new", "6", "--ignore-eos", *arguments]
        done = CliRunner().invoke(command, given, input="hi\nho\n")
        assert done.exit_code == 0, done.output
        return seen[1:]

    return prompts


def test_thinking_is_on_and_what_was_only_thought_is_not_fed_again(fed: Callable[..., list[str]]) -> None:
    for arguments in ((), ("--template-arg", "enable_thinking=true")):
        first, second = fed("--system", "Be brief.", *arguments)
        assert first == f"{START}<think>\n"
        assert second == f"{START}<|end|><|user|>ho<|end|><|assistant|><think>\n"  # cut while it thought: no answer


@pytest.mark.parametrize(
    "arguments",
    [
        ("--system", "Be brief. /no_think"),
        ("--system", "Be brief.", "--template-arg", "enable_thinking=false"),
        ("--system", "Be brief. /no_think", "--template-arg", "enable_thinking=true"),
    ],
)
def test_thinking_is_off_and_the_answer_is_fed_again(fed: Callable[..., list[str]], arguments: tuple[str, ...]) -> None:
    first, second = fed(*arguments)
    assert first == f"{START}<think></think>"
    assert second.startswith(START)
    assert second.endswith("<|end|><|user|>ho<|end|><|assistant|><think></think>")
    assert len(second) > len(START) + len("<|end|><|user|>ho<|end|><|assistant|><think></think>")
