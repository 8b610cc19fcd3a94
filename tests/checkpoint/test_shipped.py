"""What a bundle carries besides weights: whole copies, and in them all that says which ids end a text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_export.checkpoint.companions import find_companions
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.shipped import ship_companions
from elastic_runtime.errors import InputError
from elastic_runtime.text.eos import stop_ids

TOKENIZER = {"added_tokens": [{"id": 9, "content": "</s>"}], "model": {"vocab": {"a": 1}}}


def shipped(folder: Path, out: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    out.mkdir()
    ship_companions(Checkpoint.open(folder), out)
    return out


@pytest.mark.parametrize("where", ["in the checkpoint", "in the bundle"])
def test_an_edit_on_one_side_does_not_show_on_the_other(tmp_path: Path, folder: Path, where: str) -> None:
    (folder / "additional_chat_templates").mkdir()
    names = ["LICENSE", "additional_chat_templates/tool_use.jinja", "chat_template.jinja", "tokenizer_config.json"]
    for name in names:
        (folder / name).write_text("{}")
    out = shipped(folder, tmp_path / "out")
    edited, other = (folder, out) if "checkpoint" in where else (out, folder)
    for name in names:
        with (edited / name).open("r+") as file:  # in place, as json.dump into an open file and editors do
            file.write("edited")
        assert (other / name).read_text() == "{}"
        assert not (edited / name).samefile(other / name)


def test_a_link_into_a_cache_becomes_the_file(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "blob").write_text("{}")
    (folder / "tokenizer_config.json").symlink_to(tmp_path / "blob")
    out = shipped(folder, tmp_path / "out")
    assert not (out / "tokenizer_config.json").is_symlink()
    assert (out / "tokenizer_config.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("config", "files", "ids"),
    [
        ({"eos_token_id": 64}, {}, (64,)),
        ({"eos_token_id": [64, 3]}, {"generation_config": {"temperature": 0.6}}, (64, 3)),
        ({"eos_token_id": 64}, {"generation_config": {"eos_token_id": None}}, (64,)),
        ({"eos_token_id": 64}, {"generation_config": {"eos_token_id": [2]}}, (2,)),
        ({"eos_token_id": 64}, {"tokenizer_config": {"eos_token": "</s>"}, "tokenizer": TOKENIZER}, (64,)),
        ({"eos_token_id": ...}, {"tokenizer_config": {"eos_token": "</s>"}, "tokenizer": TOKENIZER}, (9,)),
        (
            {"eos_token_id": None},
            {"special_tokens_map": {"eos_token": {"content": "</s>"}}, "tokenizer": TOKENIZER},
            (9,),
        ),
        ({"eos_token_id": ...}, {}, ()),
    ],
)
def test_what_ends_a_text_travels(
    tmp_path: Path, folder: Path, edit: Callable[..., None], config: dict[str, Any], files: dict[str, Any], ids: Any
) -> None:
    """From every place in which transformers looks for it, and from the tokenizer's own mark."""
    edit(folder / "config.json", **config)
    out = shipped(folder, tmp_path / "out", **files)
    assert stop_ids(out) == ids
    if "generation_config" in files:
        kept = {name: value for name, value in files["generation_config"].items() if value is not None}
        assert kept.items() <= json.loads((out / "generation_config.json").read_bytes()).items()


def test_a_config_is_copied_as_it_is_where_it_says_all(tmp_path: Path, folder: Path) -> None:
    text = '{"eos_token_id":   2, "max_length": 1000000000000000019884624838656}'
    (folder / "generation_config.json").write_text(text)
    out = shipped(folder, tmp_path / "out")
    assert (out / "generation_config.json").read_text() == text


@pytest.mark.parametrize("found", ["x", True, [1, 2.5], {"id": 2}])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_what_is_no_id_is_refused(
    tmp_path: Path, folder: Path, edit: Callable[..., None], file: str, found: object
) -> None:
    (folder / "generation_config.json").write_text("{}")
    edit(folder / file, eos_token_id=found)
    with pytest.raises(InputError, match=f"{file}, eos_token_id: expected an id or a list of ids, found"):
        shipped(folder, tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "chat_template.jinja", "LICENSE", "additional_chat_templates/a.jinja"]
)
def test_companions_that_cannot_be_copied(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    with pytest.raises(InputError, match=r"expected the file itself, found a Git LFS pointer in its place\. Fetch it"):
        find_companions(folder)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"expected a file, found a link to one that is not there\. Download"):
        find_companions(folder)
    path.unlink()
    os.mkfifo(path)  # nobody waits for what may be written into it
    assert path not in find_companions(folder)
