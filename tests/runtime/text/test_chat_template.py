"""Chat templates: what they may say, and that transformers makes the same text of them."""

# ruff: noqa: E501  # a row of a table of templates is read in one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.text.tokenizer import Tokenizer

from . import tokenizer_kinds

transformers = pytest.importorskip("transformers")

TOOL = {"type": "function", "function": {"name": "add", "description": "<a> & b", "parameters": {"type": "object"}}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief. /no_think"},
    {"role": "user", "content": "Hé & <you>?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes.", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": None, "reasoning": "because"},
    {"role": "user", "content": "And?"},
]  # fmt: skip
#: Each of these alone, one construct a line.
CONSTRUCTS = {
    "text": "hello",
    "comment": "a{# not this #}b",
    "trimmed": "  a  {%- if true -%}  b  {%- endif -%}  c  ",
    "blocks": "{% if true %}\n  a\n  {% endif %}\nb\n",
    "loop": "{% for m in messages %}{{ m.role }}|{% endfor %}",
    "loop with index": "{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{% endfor %}",
    "loop with condition": "{% for m in messages if m.role != 'tool' %}{{ m.role }}{% else %}none{% endfor %}",
    "break and continue": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }}"
    "{% break %}{% endfor %}",
    "previous and next": "{% for m in messages %}{{ loop.previtem.role if loop.previtem }}>{% endfor %}",
    "cycle and length": "{% for m in messages %}{{ loop.cycle('a', 'b') }}{{ loop.length }}{% endfor %}",
    "slices": "{{ messages[0]['content'] }}{% for m in messages[1:] %}{{ m['role'] }}{% endfor %}{{ messages[::-1][0].role }}",
    "set": "{% set system = messages[0].content %}{{ system }}",
    "set block": "{% set x %}{{ messages[0].content }}!{% endset %}{{ x | trim }}",
    "namespace": "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.found = true %}{% endfor %}{{ ns.found }}{{ ns.n }}",
    "namespace of a dict": "{% set ns = namespace({'self': 1}, b=2) %}{{ ns.b }}",
    "macro": "{% macro turn(role, text='') %}[{{ role }}:{{ text }}]{% endmacro %}{{ turn('a', text='b') }}{{ turn('c') }}",
    "call block": "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}x{% endcall %}",
    "filter block": "{% filter upper %}abc{% endfilter %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "generation, trimmed": "a {%- generation -%} {{ messages[1].content }} {%- endgeneration -%} b",
    "generation with sets in it": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "with": "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "tojson": "{{ messages | tojson }}",
    "tojson, indented": "{{ messages[0] | tojson(indent=2, sort_keys=true) }}",
    "tojson, ascii and separators": "{{ messages[1] | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "tools": "{% if tools %}{% for t in tools %}{{ t | tojson }}{{ t.function.name }}{% endfor %}{% else %}no tools{% endif %}",
    "tools is none": "{{ tools is none }}{{ tools is defined }}{{ documents is none }}",
    "undefined": "{{ nothing }}{{ nothing is defined }}{{ nothing or 'else' }}{{ nothing | default('d') }}",
    "a missing key": "{{ messages[0].nothing is defined }}{{ 'tool_calls' in messages[2] }}{{ messages[0].get('x', 'y') }}",
    "null is missing": "{{ messages[4].content is defined }}{{ messages[4] | tojson }}",
    "reasoning by its names": "{{ messages[4].reasoning_content }}{{ messages[4].thinking }}{{ messages[4].reasoning }}",
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ image_token }}{{ cls_token is defined }}",
    "generation prompt": "{{ 'go' if add_generation_prompt else 'stop' }}",
    "template arguments": "{{ enable_thinking }}{{ enable_thinking is defined and not enable_thinking }}",
    "methods of text": "{{ messages[2].content.split('</think>')[-1].lstrip('\\n').strip().startswith('Yes') }}",
    "filters": "{{ ' a ' | trim }}{{ [3, 1] | sort | join(',') }}{{ 'ab' | upper | length }}{{ {'k': 1} | items | list }}",
    "selectattr and map": "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }}",
    "tests": "{{ 'a' is string }}{{ 1 is number }}{{ [] is iterable }}{{ {} is mapping }}{{ messages is sequence }}",
    "operators": "{{ 7 // 2 }}{{ 7 % 2 }}{{ 2 ** 3 }}{{ 'a' ~ 1 }}{{ 1 in [1] }}{{ not false and (1 < 2 <= 2) }}",
    "inline if": "{{ 'x' if messages | length > 3 else 'y' }}{{ ('a' if false) or 'b' }}",
    "range and dict": "{% for i in range(3) %}{{ i }}{% endfor %}{{ dict(a=1) }}{{ dict.fromkeys(['a'], 2) }}",
    "raw": "{% raw %}{{ kept }}{% endraw %}",
    "line breaks": "a\r\nb\n\n",
    "escapes": "{{ '\\n' }}{{ \"\\u00e9\" }}{{ '<&>' }}{{ '<&>' | e }}",
    "date": "{{ strftime_now('%Y') | length }}{{ strftime_now('%Z') }}",
    "include of nothing": "{% set d = {'a': {'b': [1, 2]}} %}{{ d.a.b[1] }}{{ d['a']['b'] | first }}",
}
REFUSED = {
    "raise_exception": "{{ raise_exception('only user and assistant') }}",
    "unknown tag": "{% nothing %}",
    "not closed": "{% generation %}a",
    "attributes of Python": "{{ ''.__class__.__mro__ }}",
    "the class of a dict": "{{ dict.__class__.__mro__[1].__subclasses__() }}{{ dict.mro() }}",
    "a namespace's own": "{% set ns = namespace(_a=1) %}",
    "a namespace's own, later": "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "a change of the messages": "{{ messages.append(1) }}",
}
CONFIG = {**tokenizer_kinds.CONFIGS["plain"], "image_token": "<think>"}


def both(folder: Path, **config: Any) -> tuple[Tokenizer, Any]:
    tokenizer_kinds.write(folder, "byte_level", {**CONFIG, **config})
    return Tokenizer(folder), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def test_there_are_40() -> None:
    assert len(CONSTRUCTS) >= 40


@pytest.mark.parametrize("template", CONSTRUCTS.values(), ids=CONSTRUCTS)
@pytest.mark.parametrize("tools", [None, [TOOL]], ids=["without tools", "with tools"])
def test_a_construct(tmp_path: Path, template: str, tools: list[dict[str, Any]] | None) -> None:
    ours, theirs = both(tmp_path, chat_template=template)
    text = theirs.apply_chat_template(
        TALK, tools=tools, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    assert ours.render(TALK, tools=tools, arguments={"enable_thinking": False}) == text
    assert ours.chat(TALK, tools=tools, arguments={"enable_thinking": False}) == theirs(
        text, add_special_tokens=False
    )["input_ids"]  # fmt: skip


@pytest.mark.parametrize("template", REFUSED.values(), ids=REFUSED)
def test_what_both_refuse(tmp_path: Path, template: str) -> None:
    ours, theirs = both(tmp_path, chat_template=template)
    with pytest.raises(Exception, match=r".*"):
        theirs.apply_chat_template(TALK, tokenize=False)
    with pytest.raises(InputError, match=r"^chat template: expected a template that takes the messages, found ."):
        ours.render(TALK)


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("where", ["list", "file", "folder", "file and folder"])
def test_which_of_several_templates(tmp_path: Path, where: str, tools: list[dict[str, Any]] | None) -> None:
    listed = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "with tools"}]
    both(tmp_path, chat_template=listed)
    if "file" in where:
        (tmp_path / "chat_template.jinja").write_text("from a file", "utf-8")
    if "folder" in where:
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("named", "utf-8")
    if where == "folder":
        (tmp_path / "additional_chat_templates" / "default.jinja").write_text("default", "utf-8")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template(TALK, tools=tools, tokenize=False)
    assert Tokenizer(tmp_path).render(TALK, tools=tools) == expected


def test_the_messages_are_not_changed(tmp_path: Path) -> None:
    ours, _ = both(tmp_path, chat_template="{{ messages | tojson }}")
    before = json.dumps(TALK)
    ours.render(TALK)
    assert json.dumps(TALK) == before


@pytest.mark.parametrize("name", ["template", "self", "values", "context"])
def test_an_argument_may_have_any_name_that_is_not_taken(tmp_path: Path, name: str) -> None:
    ours, _ = both(tmp_path, chat_template="{{ messages | length }}{{ template }}")
    assert ours.render(TALK, arguments={name: "x"}) == ("6x" if name == "template" else "6")


@pytest.mark.parametrize("name", ["messages", "tools"])
def test_what_the_conversation_fills_is_no_argument(tmp_path: Path, name: str) -> None:
    ours, _ = both(tmp_path, chat_template="{{ messages | length }}")
    with pytest.raises(InputError, match=f"^{name}: expected an argument of the template's own"):
        ours.render(TALK, arguments={name: 3})
