"""What is asked of a session is checked where it is asked, not deep inside of what opens one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.session_request import Request


def test_what_is_sound() -> None:
    Request()
    Request("small", "tensorrt-rtx", "gpu", vram=1 << 34, context=1, batch=4, weights="stored", threads=1024)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backend": "cuda"}, "backend: expected auto, onnxruntime, tensorrt-rtx, found cuda. Name one of them."),
        ({"device": "cuda"}, "device: expected auto, cpu, gpu, found cuda. Name one of them."),
        ({"weights": "int8"}, "weights: expected auto, float32, stored, found int8. Name one of them."),
        ({"context": "2048"}, "context: expected a whole number, found 2048. Give it as an int."),
        ({"context": 0}, "context: expected at least 1, found 0. Name a larger one."),
        ({"vram": "12GiB"}, "vram: expected a whole number, found 12GiB. Give it as an int."),
        ({"vram": 1.5}, "vram: expected a whole number, found 1.5. Give it as an int."),
        ({"batch": 0}, "batch: expected at least 1, found 0. Name a larger one."),
        ({"batch": True}, "batch: expected a whole number, found True. Give it as an int."),
        ({"threads": -5}, "threads: expected at least 0, found -5. Name a larger one."),
        ({"budget": 3}, "budget: expected a name, found 3. Give it as a str."),
        ({"trust_engine": "no"}, "trust_engine: expected True or False, found no. Give it as a bool."),
        ({"trust_engine": 1}, "trust_engine: expected True or False, found 1. Give it as a bool."),
        ({"plugin_folder": 3}, "plugin_folder: expected a folder, found 3. Give its path."),
        ({"plugin_folder": ""}, "plugin_folder: expected a folder, found nothing. Give its path."),
        ({"cache_folder": b"a"}, "cache_folder: expected a folder, found b'a'. Give its path."),
        ({"threads": 100_000}, "threads: expected at most 1024, found more. Name a smaller one."),
    ],
)
def test_what_is_not(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        Request(**options)
    assert str(caught.value) == text


def test_a_folder_may_be_named_by_text() -> None:
    request = Request(plugin_folder="a/b", cache_folder="c")  # type: ignore[arg-type]  # of a program without mypy
    assert (request.plugin_folder, request.cache_folder) == (Path("a/b"), Path("c"))
