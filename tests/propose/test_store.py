"""What is kept of an interrupted search."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.propose.store import Store, checkpoint_inputs
from elastic_runtime.errors import BuildError, InputError
from sorted_model import write_sorted


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    file = tmp_path / "out.json.partial"
    Store(file, {"a": 1}).put({"x": [0.1, 2.0], "y": [1e-300]})
    again = Store(file, {"a": 1})
    assert (len(again), again.other) == (2, False)
    assert again.get("x") == [0.1, 2.0]
    assert again.get("z") is None
    again.put({"z": [3.0]})
    assert len(Store(file, {"a": 1})) == 3
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_of_other_inputs_nothing_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "out.json.partial"
    Store(file, {"a": 1}).put({"x": [0.1]})
    other = Store(file, {"a": 2})
    assert (len(other), other.other) == (0, True)
    other.put({"y": [0.2]})
    assert Store(file, {"a": 2}).get("x") is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": "elastic-proposing/1"}', '{"schema": "elastic-proposing/1", "inputs": 3}', "\xff"],
)
def test_a_file_of_something_else_is_not_taken(text: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json.partial"
    file.write_bytes(text.encode("latin-1"))
    assert (len(Store(file, {})), Store(file, {}).other) == (0, True)


def test_measurements_that_are_none_are_not_taken(tmp_path: Path) -> None:
    """Somebody edited it."""
    file = tmp_path / "out.json.partial"
    Store(file, {}).put({"x": [0.1]})
    for found in ("[0.1]", '{"x": 3}', '{"x": ["a"]}', '{"x": [NaN]}'):
        file.write_text(file.read_text().replace('{"x": [0.1]}', found))
        assert (len(Store(file, {})), Store(file, {}).other) == (0, True), found
        Store(file, {}).put({"x": [0.1]})


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file that can be written, found No such file or directory"):
        Store(tmp_path / "none" / "out.partial", {}).put({"x": [1.0]})


def test_a_full_disk_costs_the_new_measurements_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out.json.partial"
    Store(file, {}).put({"x": [0.1]})

    def write_half(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text.encode(encoding)[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_half)
        with pytest.raises(BuildError, match="partial: expected room to write, found No space left on device"):
            Store(file, {}).put({"y": [0.2]})
    assert list(tmp_path.iterdir()) == [file]
    assert (Store(file, {}).get("x"), Store(file, {}).get("y")) == ([0.1], None)


def test_a_checkpoint_of_other_bytes_is_another(tmp_path: Path) -> None:
    source = write_sorted(tmp_path / "model")
    before = checkpoint_inputs(Checkpoint.open(source, require_budgets=False))
    assert checkpoint_inputs(Checkpoint.open(source, require_budgets=False)) == before
    [shard] = source.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert checkpoint_inputs(Checkpoint.open(source, require_budgets=False)) != before
