"""A file that a command was asked for is whole, the older one, or what it was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from elastic_export.cli.whole_file import write_whole
from elastic_runtime.errors import InputError


def test_a_new_file_and_one_in_place_of_an_older(tmp_path: Path) -> None:
    for text in ("first", "zweite, größere"):
        write_whole(tmp_path / "f", text, "--json")
        assert (tmp_path / "f").read_text("utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_text_that_is_none_leaves_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("older")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "f", "newer \ud800", "--json")
    assert (tmp_path / "f").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("older")
    (tmp_path / "link").symlink_to("f")
    write_whole(tmp_path / "link", "newer", "--json")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "f").read_text() == "newer"


def test_a_pipe_stays_one_and_hears_it(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "text", "--json")
    reader.join(10)
    assert heard == ["text"]
    assert pipe.is_fifo()


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none" / "f"):
        with pytest.raises(InputError, match="expected a file that can be written") as refused:
            write_whole(place, "text", "--json")
        assert refused.value.todo == "name another place with --json"
    assert not list(tmp_path.iterdir())
