"""Stage `sanitizer`: two calls in a process that compute-sanitizer watches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.stages import sanitizer
from elastic_runtime.bundle import Bundle

Program = Callable[[str, str], Path]


def _place(bundle: Path, tmp_path: Path) -> Place:
    return Place(bundle, tmp_path, engine="small/rtx5080.engine")


def test_without_the_tool_it_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = sanitizer.run(Place(tmp_path, tmp_path))
    assert found == {"not_run": "no compute-sanitizer on the PATH: it comes with the CUDA toolkit"}


@pytest.mark.parametrize(("code", "clean"), [(0, True), (9, False)])
def test_one_prefill_and_one_decode_step_are_watched(
    stand_in_card: Path, tmp_path: Path, program: Program, code: int, clean: bool
) -> None:
    program("compute-sanitizer", f'echo "$1 $2 $3 $4"; shift 4; "$@" || exit 1; exit {code}')
    found = sanitizer.run(_place(stand_in_card, tmp_path))
    vocabulary = Bundle.open(stand_in_card).budget("small").widths.vocab_size
    assert found == {"clean": clean, "exit": code, "calls": {"found": {"prefill": vocabulary, "decode": vocabulary}}}


def test_a_process_that_dies_under_it_leaves_no_calls(stand_in_card: Path, tmp_path: Path, program: Program) -> None:
    program("compute-sanitizer", "exit 134")
    assert sanitizer.run(_place(stand_in_card, tmp_path)) == {"clean": False, "exit": 134, "calls": None}
