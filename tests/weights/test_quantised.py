"""The files of a parent in eight bits: what is in them, what a budget slices of them, and what a later run takes up."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import small_export
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import positions
from elastic_export.weights import quantised as room
from elastic_export.weights.quantised import Quantised, counted_beside, is_quantised_file
from elastic_export.weights.row_losses import Losses
from elastic_export.weights.weight_loss import NAMED, WeightTally
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.safetensors import read_header
from killed_at_line import count_lines, die_at_line, run_child
from synthetic import write_checkpoint

ARCH = Architecture("M-*", 62, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))
HALF = Budget("half", 16, (24,), (2,), 6, 2, (1,))
_FILES = ("weights/quantised.py", "weights/counted.py", "weights/digested.py")
LEAD = "backbone.layers."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    weights = random_weights(ARCH, np.random.default_rng(0))
    write_checkpoint(tmp_path / "c", ARCH, weights, [Budget.full(ARCH, "full")], "bf16", 2, fp32_vectors=True)
    for path in (tmp_path / "c").iterdir():
        os.utime(path, ns=(10**18, 10**18))  # long ago
    return Checkpoint.open(tmp_path / "c")


@pytest.fixture
def parent(checkpoint: Checkpoint) -> Callable[..., Quantised]:
    def make(**more: Any) -> Quantised:
        asked = {"budgets": [HALF], "precision": "bf16", "parent": "p", "max_file_bytes": 4000, **more}
        return Quantised(checkpoint, EightBits.of(ARCH, checkpoint.budgets.values()), **asked)

    return make


def lost(parent: Quantised, folder: Path) -> dict[str, WeightTally]:
    folder.mkdir(exist_ok=True)
    return parent.write(folder, lambda path, digest: None)


def written(parent: Quantised, folder: Path) -> dict[str, str | None]:
    heard: dict[str, str | None] = {}
    folder.mkdir(exist_ok=True)
    parent.write(folder, lambda path, digest: heard.update({path.name: digest}))
    return heard


def test_what_the_files_hold(checkpoint: Checkpoint, parent: Callable[..., Quantised], tmp_path: Path) -> None:
    """Read by the reference implementation of the format."""
    heard = written(parent(), tmp_path / "q")
    files = sorted((tmp_path / "q").glob("*.safetensors"))
    assert [path.name for path in files] == list(heard)
    assert len(files) > 2
    assert all(is_quantised_file(f"weights/{path.name}") for path in files)
    assert list(heard.values()) == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    tensors = {name: array for path in files for name, array in safetensors.numpy.load_file(path).items()}
    wide = {name: checkpoint.read(name).astype(np.float32) for name in checkpoint.tensors}

    def expected(rows: Any) -> tuple[Any, Any]:
        scale = np.abs(rows).max(axis=1) / np.float32(127)
        return np.round(rows / scale[:, None]), scale * 128

    qkv = np.concatenate([wide[f"{LEAD}2.mixer.{name}_proj.weight"] for name in "qkv"])
    for name, rows, turned in [
        ("backbone.embeddings.weight", wide["backbone.embeddings.weight"], False),
        (f"{LEAD}0.mixer.in_proj.weight", wide[f"{LEAD}0.mixer.in_proj.weight"], True),
        (f"{LEAD}2.mixer.qkv_proj.weight", qkv, True),
        ("lm_head.weight", wide["lm_head.weight"], True),
    ]:
        values, scales = expected(rows)
        np.testing.assert_array_equal(tensors[f"{name}.int8"], values.T if turned else values)
        np.testing.assert_array_equal(tensors[f"{name}.scale"], scales)
    stays = {n for n in wide if not any(n in m.names for m in EightBits.of(ARCH, []).matrices)}
    assert {n for n in tensors if not n.endswith((".int8", ".scale"))} == stays
    for name in stays:
        assert tensors[name].tobytes() == checkpoint.read(name).tobytes(), name


def test_where_each_tensor_lies(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    written(parent(), tmp_path)
    found = parent().found(tmp_path)
    assert found is not None
    for name, tensor in found.items():
        entry = read_header(tensor.file)[name]
        assert (tensor.dtype, tensor.shape, tensor.offset) == (entry.dtype, entry.shape, entry.offset)


def test_a_run_takes_up_what_another_left(
    parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, real = list[str](), room.quantised

    def dies(checkpoint: Any, matrix: Any, losses: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(matrix.name)
        return real(checkpoint, matrix, losses)

    monkeypatch.setattr(room, "quantised", dies)
    with pytest.raises(KeyboardInterrupt):
        written(parent(), tmp_path / "q")
    left = sorted(path.name for path in (tmp_path / "q").glob("*.safetensors"))
    assert left
    assert parent().found(tmp_path / "q") is None
    monkeypatch.setattr(room, "quantised", real)
    heard = written(parent(), tmp_path / "q")
    assert [name for name, digest in heard.items() if digest is None] == left  # not written again
    whole = written(parent(), tmp_path / "whole")
    for name in whole:
        assert (tmp_path / "q" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("other", [{"parent": "another"}, {"precision": "fp32"}, {"max_file_bytes": 5000}])
def test_files_of_another_parent_are_not_taken(
    parent: Callable[..., Quantised], tmp_path: Path, other: dict[str, Any]
) -> None:
    written(parent(), tmp_path)
    assert parent(**other).found(tmp_path) is None
    again = written(parent(**other), tmp_path)
    assert again == written(parent(**other), tmp_path / "new") or other == {"precision": "fp32"}
    assert any(again.values())


def test_files_older_than_the_shards_are_not_taken_up(
    parent: Callable[..., Quantised], tmp_path: Path, checkpoint: Checkpoint
) -> None:
    heard = written(parent(), tmp_path)
    os.utime(checkpoint.shards[0])
    assert written(parent(), tmp_path) == heard


def test_a_file_of_another_size_is_not_taken(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    heard = written(parent(), tmp_path)
    name = next(iter(heard))
    with (tmp_path / name).open("ab") as file:
        file.write(b"x")
    assert parent().found(tmp_path) is None
    assert written(parent(), tmp_path)[name] == heard[name]


def test_what_nobody_will_take_up_is_removed(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    """Files of another division, and one that was not finished; nothing that is not of this kind."""
    folder = tmp_path / "q"
    before = written(parent(max_file_bytes=2000), folder)
    (folder / "q8-00007-of-00009.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    heard = written(parent(), folder)
    assert not before.keys() & heard.keys()
    beside = {counted_beside(folder / name).name for name in heard}
    assert {path.name for path in folder.iterdir()} == {*heard, *beside, "notes.txt"}


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    weights = random_weights(ARCH, np.random.default_rng(0))
    weights[f"{LEAD}1.mixer.up_proj.weight"][3, 4] = np.nan
    write_checkpoint(tmp_path / "c", ARCH, weights, [Budget.full(ARCH, "full")], "bf16")
    parent = Quantised(Checkpoint.open(tmp_path / "c"), EightBits.of(ARCH, []), (), precision="bf16", parent="p")
    with pytest.raises(InputError, match=r"tensor 'backbone.layers.1.mixer.up_proj.weight': .*found nan"):
        written(parent, tmp_path / "q")
    assert not list((tmp_path / "q").glob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_named(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"missing: expected to write the quantised .*\. Name another output\."):
        parent().write(tmp_path / "missing", lambda path, digest: None)


@pytest.mark.parametrize(
    ("number", "todo"), [(errno.EDQUOT, "Free some space."), (errno.EFBIG, "Raise the limit of a file's size ")]
)
def test_no_room_for_a_file(
    parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, todo: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, "Full")

    monkeypatch.setattr(Quantised, "_write", full)
    with pytest.raises(BuildError, match=re.escape(f"to write the quantised parent, found Full. {todo}")):
        written(parent(), tmp_path / "q")


def test_what_a_budget_loses_is_counted_over_what_it_keeps(
    checkpoint: Checkpoint, parent: Callable[..., Quantised], tmp_path: Path
) -> None:
    """Against numpy, out of the files."""
    budgets = [Budget.full(ARCH, "full"), HALF]
    found = lost(parent(budgets=budgets), tmp_path)
    tensors = {n: a for path in tmp_path.glob("*.safetensors") for n, a in safetensors.numpy.load_file(path).items()}
    for budget in budgets:
        errors, squares, rows = 0.0, 0.0, list[tuple[float, str, int]]()
        for name, runs in tensor_runs(ARCH, budget).items():
            plain = checkpoint.read(name).astype(np.float64)
            if plain.ndim == 2:
                before, after = (array[np.ix_(*map(positions, runs))] for array in (plain, worth(tensors, name)))
                apart = np.linalg.norm(after - before, axis=1)
                losses = -apart / np.linalg.norm(before, axis=1)
                rows += [(loss, name, int(row)) for loss, row in zip(losses, positions(runs[0]), strict=True)]
                errors, squares = errors + float((apart**2).sum()), squares + float((before**2).sum())
        tally = found[budget.name]
        assert (tally.errors, tally.squares) == pytest.approx((errors, squares), rel=1e-5)
        worst = sorted(row for row in rows if row[0])[:NAMED]
        assert [(row.tensor, row.row) for row in tally.rows] == [(name, row) for _, name, row in worst]
        assert [row.error for row in tally.rows] == pytest.approx([-loss for loss, _, _ in worst], rel=1e-4)


def worth(tensors: dict[str, Any], name: str) -> Any:
    """A matrix of the parent as the files have it, [N, K]."""
    if name in tensors:
        return tensors[name].astype(np.float64)
    joined, first = name, 0
    if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
        joined = f"{name[: -len('q_proj.weight')]}qkv_proj.weight"
        first = {"q": 0, "k": 64, "v": 96}[name[-len("q_proj.weight")]]  # 4 heads of 16, then 2 of keys and of values
    values, scales = (tensors[f"{joined}.{kind}"].astype(np.float64) for kind in ("int8", "scale"))
    rows = values if joined == "backbone.embeddings.weight" else values.T
    count = {"q": 64, "k": 32, "v": 32}[name[-len("q_proj.weight")]] if joined != name else len(rows)
    return (rows * scales[:, None] / 128)[first : first + count]


def test_an_odd_matrix_loses_what_another_dtype_takes(tmp_path: Path) -> None:
    """It stays as it is where the parent is in bf16; of a float32 parent it is rounded to that."""
    arch = replace(ARCH, vocab_size=61)
    weights, full = random_weights(arch, np.random.default_rng(0)), Budget.full(arch, "full")
    for dtype in ("bf16", "fp32"):
        write_checkpoint(tmp_path / dtype, arch, weights, [full], dtype)
        checkpoint = Checkpoint.open(tmp_path / dtype)
        losses = Losses({"full": {"lm_head.weight": tensor_runs(arch, full)["lm_head.weight"]}})
        items = room._stored(checkpoint, EightBits.of(arch, [full]), "bf16")
        [item] = [item for item in items if "lm_head.weight" in item.tensors]
        [stored] = room._arrays(checkpoint, item, losses)
        head = checkpoint.read("lm_head.weight").astype(np.float64)
        errors, squares = np.square(stored.astype(np.float64) - head).sum(), np.square(head).sum()
        assert (errors > 0) == (dtype == "fp32")
        tally = losses.tallies["full"]
        assert (tally.errors, tally.squares) == pytest.approx((errors, squares), rel=1e-12, abs=0)
        assert bool(tally.rows) == (dtype == "fp32")


def test_an_odd_matrix_that_is_no_number_is_named(tmp_path: Path) -> None:
    arch = replace(ARCH, vocab_size=61)
    weights, full = random_weights(arch, np.random.default_rng(0)), Budget.full(arch, "full")
    weights["lm_head.weight"][60, 4] = np.inf
    write_checkpoint(tmp_path / "c", arch, weights, [full], "bf16")
    checkpoint, eight_bits = Checkpoint.open(tmp_path / "c"), EightBits.of(arch, [full])
    text = r"tensor 'lm_head.weight': expected finite values, found a NaN or an infinity"
    with pytest.raises(InputError, match=text):
        written(Quantised(checkpoint, eight_bits, [full], precision="bf16", parent="p"), tmp_path / "q")


def test_what_is_lost_is_the_same_whoever_wrote_the_files(
    parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this export; by one before, of these budgets or of others. Of a version that did not say it nothing stays."""
    expected, measured = lost(parent(), tmp_path / "q"), list[str]()
    real = room.measure

    def measure(checkpoint: Any, matrix: Any, losses: Any) -> None:
        measured.append(matrix.name)
        real(checkpoint, matrix, losses)

    monkeypatch.setattr(room, "measure", measure)
    assert lost(parent(), tmp_path / "q") == expected
    assert not measured
    other = lost(parent(budgets=[Budget.full(ARCH, "full")]), tmp_path / "q")
    assert other["full"] == parent(budgets=[Budget.full(ARCH, "full")]).measure()["full"] != expected["half"]
    for path in (tmp_path / "q").glob("*.json"):
        path.unlink()
    measured.clear()
    assert lost(parent(), tmp_path / "q") == expected
    assert not measured
    assert parent().measure() == expected
    assert len(measured) == len(EightBits.of(ARCH, []).matrices)


def test_how_far_it_is(parent: Callable[..., Quantised], tmp_path: Path) -> None:
    """By the bytes of what is stored, whoever writes it: one that finds files is as far as that; and of counting."""
    half, done = parent(), list[int]()
    gauge = half.gauge()
    half.write(tmp_path, lambda path, digest: done.append(gauge.done()))
    files = sorted(tmp_path.glob("*.safetensors"))
    sizes = [sum(entry.nbytes for entry in read_header(path).values()) for path in files]
    assert done == list(np.cumsum(sizes))
    assert gauge.total == sum(sizes)
    files[0].unlink()
    for work in (lambda again: again.write(tmp_path, lambda path, digest: None), lambda again: again.measure()):
        again = parent()
        gauge = again.gauge()
        assert gauge.done() == 0
        work(again)
        assert gauge.done() == gauge.total == sum(sizes)


def test_what_another_budget_file_has_lost_of_a_file_of_that_name_is_not_taken(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its export rounds the same parent for the same budget, but for what is odd in another, and ends beside a file."""
    full = Budget.full(ARCH, "full")

    def of(*file: Budget) -> Quantised:
        return Quantised(checkpoint, EightBits.of(ARCH, file), [full], precision="bf16", parent="p")

    def dies(part: Path, path: Path) -> None:
        raise KeyboardInterrupt

    expected, files = lost(of(full), tmp_path), sorted(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(room, "complete", dies)
        with pytest.raises(KeyboardInterrupt):
            lost(of(full, replace(full, ffn_sizes=(23,))), tmp_path)
    assert lost(of(full), tmp_path) == expected
    assert sorted(tmp_path.iterdir()) == files


def test_what_another_quantiser_left_is_made_again_whatever_ends_that(
    parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, real = lost(parent(quantiser="ours"), tmp_path / "whole"), room.quantised

    def otherwise(*arguments: Any) -> Any:
        return (-array for array in real(*arguments))

    def dies(part: Path, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "quantised", otherwise)
        lost(parent(quantiser="another"), tmp_path / "q")
    with monkeypatch.context() as patch:
        patch.setattr(room, "complete", dies)  # what was lost is written by then
        with pytest.raises(KeyboardInterrupt):
            lost(parent(quantiser="ours"), tmp_path / "q")
    assert lost(parent(quantiser="ours"), tmp_path / "q") == expected
    assert small_export.contents(tmp_path / "q") == small_export.contents(tmp_path / "whole")


def test_killed_at_any_line(parent: Callable[..., Quantised], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and what is lost come out as of a run that nobody disturbed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses nothing that it had written
    expected, whole = lost(parent(), tmp_path / "whole"), small_export.contents(tmp_path / "whole")
    lines = count_lines(lambda: lost(parent(), tmp_path / "counted"), _FILES)
    partly = 0
    for number in range(1, lines, 1 + lines // 60):
        folder = tmp_path / f"{number}"
        status = run_child(lambda folder=folder: lost(parent(), folder), die_at_line(number, _FILES))  # type: ignore[misc]
        assert os.WIFSIGNALED(status), number
        left = len(list(folder.glob("*.safetensors"))) if folder.is_dir() else 0
        partly += 0 < left < len(list((tmp_path / "whole").glob("*.safetensors")))
        assert lost(parent(), folder) == expected, number
        assert small_export.contents(folder) == whole, number
    assert partly > 10
