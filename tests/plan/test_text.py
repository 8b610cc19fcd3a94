"""A bundle's text is tried before anything is built, with the files that it will carry."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.plan import template_trial
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.plan.text import check_text
from elastic_runtime.errors import BuildError, InputError
from random_demo import byte_tokenizer, write_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture
def folder(tmp_path: Path, demo: Path) -> Path:
    return shutil.copytree(demo, tmp_path / "ckpt", copy_function=os.link)


def put(folder: Path, name: str, content: str | bytes | dict[str, Any] | None) -> None:
    (folder / name).unlink(missing_ok=True)  # a link to the module's own
    if content is None:
        (folder / name).mkdir()
        return
    (folder / name).parent.mkdir(exist_ok=True)
    text = json.dumps(content) if isinstance(content, dict) else content
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)


def test_the_demo_is_sound(folder: Path) -> None:
    assert check_text(Checkpoint.open(folder)) == ()


def test_without_a_tokenizer_there_is_no_text_to_try(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert check_text(Checkpoint.open(folder)) == ()


def test_a_tokenizer_that_knows_no_text_is_told_of(folder: Path) -> None:
    """Encoding and decoding agree on nothing at all."""
    empty = byte_tokenizer()
    empty["model"]["vocab"], empty["added_tokens"] = {}, []
    put(folder, "tokenizer.json", empty)
    [note] = check_text(Checkpoint.open(folder))
    assert note == f"{folder}/tokenizer.json: makes no token of a text, so the bundle takes token ids alone"


PANICS = byte_tokenizer() | {"decoder": {"type": "Strip", "content": "!", "start": 0, "stop": 99}}
BAD: dict[str, tuple[str, Any, str]] = {
    "a tokenizer that is cut": ("tokenizer.json", b'{"version": "1.0", "mod', "expected a tokenizer of the tokenizers"),
    "a page in its place": (
        "tokenizer.json",
        "<!DOCTYPE html><html>",
        "expected a tokenizer of the tokenizers library",
    ),
    "an empty file": ("tokenizer.json", "", "expected a tokenizer of the tokenizers library"),
    "a pointer": ("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "a Git LFS"),
    "a decoder that fails": ("tokenizer.json", PANICS, "expected a tokenizer that encodes and decodes, found"),
    "a config that is cut": ("tokenizer_config.json", b'{"chat_templ', "expected valid JSON"),
    "a config that is no object": ("tokenizer_config.json", b"[]", "expected a JSON object, found a list of 0"),
    "a template of a tag nobody knows": ("chat_template.jinja", "{% nothing %}", "found Encountered unknown tag"),
    "a template that is not closed": ("chat_template.jinja", "{% if true %}", "found Unexpected end of template"),
    "a template that divides by zero": ("chat_template.jinja", "{{ 1 // 0 }}", "found ZeroDivisionError"),
    "a template of what is undefined": ("chat_template.jinja", "{{ a.b.c }}", "found 'a' is undefined"),
    "a template that is no UTF-8": ("chat_template.jinja", b"ab\xff", "expected UTF-8, found an invalid byte at 2"),
    "a template for tools that is not closed": (
        "additional_chat_templates/tool_use.jinja",
        "{% for t in tools %}{{ t.function.name }}",
        "found Unexpected end of template",
    ),
    "a folder in its place": ("tokenizer.json", None, "expected a file, found a folder in its place"),
    "ids that are none": ("generation_config.json", {"eos_token_id": "</s>"}, "expected an id or a list of ids"),
    "a generation config that is cut": ("generation_config.json", b'{"eos', "expected valid JSON"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_what_would_not_work_is_refused(folder: Path, name: str, content: Any, message: str) -> None:
    put(folder, name, content)
    with pytest.raises(InputError) as caught:
        plan_job(Checkpoint.open(folder), ExportOptions("small", "rtx5080", folder.parent / "out"), demo=False)
    error = str(caught.value)
    assert error.startswith(str(folder))
    assert message in error
    assert caught.value.todo


ENDLESS = "{% for i in range(10**5) %}{% for j in range(10**5) %}x{% endfor %}{% endfor %}"


@pytest.mark.parametrize("template", [ENDLESS, "{{ 10 ** (10 ** 9) }}"], ids=["loops", "one number"])
@pytest.mark.parametrize("tools", [False, True])
def test_a_template_that_does_not_end_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, template: str, tools: bool
) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", 1)
    put(folder, f"additional_chat_templates/{'tool_use' if tools else 'default'}.jinja", template)
    put(folder, f"additional_chat_templates/{'default' if tools else 'tool_use'}.jinja", "a")
    message = r"ckpt, chat template: expected a text within 1 s of a processor, found none\. Correct it, or take it out"
    with pytest.raises(InputError, match=message):
        check_text(Checkpoint.open(folder))


def test_a_template_that_takes_all_memory_is_refused(folder: Path) -> None:
    put(folder, "chat_template.jinja", "{{ 'x' * 10 ** 10 }}")
    with pytest.raises(InputError, match="expected a template that takes the messages, found MemoryError"):
        check_text(Checkpoint.open(folder))


def test_a_process_that_gives_no_answer_is_not_the_template_s_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", "soon")
    message = r"chat template: expected to be rendered, found its process ended with status 1\. See what .* soon </dev"
    with pytest.raises(BuildError, match=message):
        check_text(Checkpoint.open(folder))


def test_a_process_that_is_gone_before_it_is_asked() -> None:
    with template_trial.TemplateTrial() as trial:
        trial._child.kill()
        trial._child.wait()
        with pytest.raises(BuildError, match=r"its process ended with status -9\. Close other programs"):
            trial.render({"template": "", "messages": [], "values": {}})


@pytest.mark.parametrize("executable", ["", None])
def test_a_python_that_knows_no_executable(monkeypatch: pytest.MonkeyPatch, executable: str | None) -> None:
    monkeypatch.setattr(template_trial.sys, "executable", executable)
    with pytest.raises(BuildError, match="chat template: expected a Python to render it in, found none"):
        template_trial.TemplateTrial().__enter__()


def test_a_companion_of_somebody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Path.open

    def theirs(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "tokenizer.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ours(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", theirs)
    with pytest.raises(InputError, match=r"tokenizer\.json: expected a file that can be read, found Permission denied"):
        check_text(Checkpoint.open(folder))


def test_a_template_may_refuse_what_it_was_not_made_for(folder: Path) -> None:
    put(folder, "chat_template.jinja", "{{ raise_exception('documents, please') }}")
    [note] = check_text(Checkpoint.open(folder))
    assert note == f"{folder}, chat template: refuses a single message: documents, please"


def test_a_template_for_tools_may_refuse_too(folder: Path) -> None:
    put(folder, "additional_chat_templates/default.jinja", "a")
    put(folder, "additional_chat_templates/tool_use.jinja", "{{ raise_exception('one tool at most') }}")
    assert check_text(Checkpoint.open(folder)) == (f"{folder}, chat template: refuses a tool: one tool at most",)
    put(folder, "additional_chat_templates/tool_use.jinja", "{{ tools[0].usage.text }}")
    [note] = check_text(Checkpoint.open(folder))
    assert note.startswith(f"{folder}, chat template: fails on a tool of OpenAI's form: 'dict object' has no attribute")


def test_ids_beyond_the_model_are_told(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    vocabulary = tokenizer["model"]["vocab"]
    letter = next(letter for letter, byte in vocabulary.items() if byte == ord("H"))
    put(folder, "tokenizer.json", tokenizer | {"model": tokenizer["model"] | {"vocab": vocabulary | {letter: 5000}}})
    [note] = check_text(Checkpoint.open(folder))
    assert note == f"{folder / 'tokenizer.json'}: gives id 5000, and the model knows 264 ids"
