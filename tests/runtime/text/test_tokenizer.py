"""Text in and out: nothing that was given out changes, no character is cut, stops are held back exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.text.tokenizer import StopText, Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def folder(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tokenizer")
    for name in FILES:
        shutil.copyfile(demo_bundle / name, target / name)
    return target


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@given(st.lists(st.integers(0, 263), max_size=40))
def test_streamed_text_is_the_whole_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@given(st.text(max_size=20))
def test_no_character_is_cut(tokenizer: Tokenizer, text: str) -> None:
    stream, ids = tokenizer.stream(), tokenizer.encode(text)
    pieces = [stream.push(token) for token in ids]
    assert "".join([*pieces, stream.finish()]) == text
    assert text.count("\N{REPLACEMENT CHARACTER}") == "".join(pieces).count("\N{REPLACEMENT CHARACTER}")


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stops_are_found_however_the_text_was_cut(pieces: list[str], stops: list[str]) -> None:
    gate, passed, met = StopText(stops), "", False
    for piece in pieces:
        text, met = gate.push(piece)
        passed += text
        if met:
            break
    whole = "".join(pieces)
    ends = [at + len(stop) for stop in stops if (at := whole.find(stop)) >= 0]
    assert met == bool(ends)
    if met:
        assert not any(stop in passed for stop in stops)
        assert whole.startswith(passed)
        assert any(whole[len(passed) :].startswith(stop) for stop in stops)
    else:
        assert passed + gate.finish() == whole


def test_what_cannot_become_a_stop_passes_at_once() -> None:
    gate = StopText(["<end>"])
    assert gate.push("a <e") == ("a ", False)
    assert gate.push("x") == ("<ex", False)
    assert gate.push("<end> more") == ("", True)


def test_refuses_an_empty_stop() -> None:
    with pytest.raises(InputError, match="stop: expected texts of at least one character, found an empty one"):
        StopText([""])


def test_knows_what_ends_a_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.stop_ids() == (257, 262)
    assert tokenizer.stop_ids(262) == (257,)  # a model of so many ids never makes the other
    assert tokenizer.size == 264


def test_takes_the_tokenizers_own_mark_without_a_generation_config(folder: Path, tmp_path: Path) -> None:
    for name in FILES[:2]:
        shutil.copyfile(folder / name, tmp_path / name)
    assert Tokenizer(tmp_path).stop_ids() == (257,)
    (tmp_path / FILES[2]).write_text('{"eos_token_id": "x"}')
    with pytest.raises(InputError, match="eos_token_id: expected an id or a list of ids, found"):
        Tokenizer(tmp_path).stop_ids()


def test_renders_a_conversation(tokenizer: Tokenizer) -> None:
    ids = tokenizer.chat([{"role": "user", "content": "hé"}])
    assert tokenizer.decode(ids, special=True) == "<|user|>hé<|end|><|assistant|>"
    assert ids[0] == 260


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{{ {'b': '<é&>', 'a': 1} | tojson }}", '{"b": "<é&>", "a": 1}'),
        ("{{ {'b': 2, 'a': 1} | tojson(indent=1, sort_keys=true) }}", '{\n "a": 1,\n "b": 2\n}'),
        ("{{ strftime_now('%Y') | length }}", "4"),
    ],
)
def test_templates_may_use_what_they_were_written_for(folder: Path, tmp_path: Path, template: str, text: str) -> None:
    shutil.copyfile(folder / FILES[0], tmp_path / FILES[0])
    (tmp_path / FILES[1]).write_text(json.dumps({"chat_template": template}))
    ids = Tokenizer(tmp_path).chat([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}])
    assert Tokenizer(tmp_path).decode(ids) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (None, "chat: expected a chat template in tokenizer_config.json, found none. Use --prompt."),
        (
            "{{ raise_exception('no system') }}",
            "chat template: expected a template that takes the messages, found no s",
        ),
        ("{% for %}", "chat template: expected a template that takes the messages, found "),
        (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "chat template: expected a template that takes the messages",
        ),
        (
            "{{ 1 // 0 }}",
            "chat template: expected a template that takes the messages, found ZeroDivisionError",
        ),
        (
            "{{ range(10 ** 9) }}",
            "chat template: expected a template that takes the messages, found OverflowError",
        ),
    ],
)
def test_says_what_is_wrong_with_a_template(folder: Path, tmp_path: Path, template: str | None, text: str) -> None:
    shutil.copyfile(folder / FILES[0], tmp_path / FILES[0])
    (tmp_path / FILES[1]).write_text(json.dumps({"chat_template": template} if template else {}))
    with pytest.raises(InputError) as caught:
        Tokenizer(tmp_path).chat([{"role": "user", "content": "x"}])
    assert str(caught.value).startswith(text)


def test_a_template_that_is_no_utf8_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(folder / FILES[0], tmp_path / FILES[0])
    (tmp_path / "chat_template.jinja").write_bytes(b"ab\xff")
    with pytest.raises(InputError, match=r"chat_template\.jinja: expected UTF-8, found an invalid byte at 2"):
        Tokenizer(tmp_path).chat([{"role": "user", "content": "x"}])


def test_reads_templates_of_newer_and_of_several_forms(folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(folder / FILES[0], tmp_path / FILES[0])
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "a{{ bos_token }}"}]
    config = {"chat_template": named, "bos_token": {"content": "<|bos|>"}}
    (tmp_path / FILES[1]).write_text(json.dumps(config))
    assert Tokenizer(tmp_path).chat([]) == [ord("a"), 258]
    (tmp_path / "chat_template.jinja").write_text("b")
    assert Tokenizer(tmp_path).chat([]) == [ord("b")]


def test_a_folder_may_be_named_by_text(folder: Path) -> None:
    assert Tokenizer(str(folder)).encode("a") == Tokenizer(folder).encode("a")


@pytest.mark.parametrize("token", [-1, 1 << 32, 1 << 70, "a", 1.0, True])
def test_refuses_ids_that_the_library_cannot_count(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(InputError, match=rf"token ids: expected 0 or more, of 32 bits, found {token}"):
        tokenizer.decode([65, token])


def test_what_the_library_fails_on_is_no_fault_of_ours(folder: Path, tmp_path: Path) -> None:
    """It raises a bare Exception, or panics, which is no Exception at all."""
    described = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    strip = {"type": "Strip", "content": "!", "start": 0, "stop": 99}  # counts back beyond the beginning
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}
    told = r"tokenizer\.json: expected a tokenizer that encodes and decodes, found .* Correct it in the checkpoint and"
    (tmp_path / "tokenizer.json").write_text(json.dumps(described | {"decoder": strip}), "utf-8")
    ours = Tokenizer(tmp_path)
    with pytest.raises(InputError, match=told):
        ours.decode([ord("!")])
    with pytest.raises(InputError, match=told):
        ours.stream().push(ord("!"))
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": words}), "utf-8"
    )
    with pytest.raises(InputError, match=told):
        Tokenizer(tmp_path).encode("b")


def test_refuses_what_is_no_text_or_no_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt: expected valid UTF-8, found an invalid byte at 1"):
        tokenizer.encode("a\udc80")
    for found in (b"abc", None):
        with pytest.raises(InputError, match=rf"^prompt: expected text, found {found}\. Give it as a str"):
            tokenizer.encode(found)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected the bundle's tokenizer, found no such file\. Feed token ids"):
        Tokenizer(tmp_path)
    (tmp_path / FILES[0]).write_text("{}")
    with pytest.raises(InputError, match="expected a tokenizer of the tokenizers library"):
        Tokenizer(tmp_path)


def test_says_which_package_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BuildError, match=r"the package tokenizers: .* Pip install tokenizers\."):
        Tokenizer(folder)
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "elastic_runtime.text.chat_template", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2.exceptions", None)
    with pytest.raises(BuildError, match=r"the package jinja2: .* Pip install jinja2\."):
        Tokenizer(folder).chat([])
