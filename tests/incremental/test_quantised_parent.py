"""A parent in eight bits that stands is linked and not quantised again, whichever budgets slice it now; what rounding
took from those is counted for their own cuts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import digests, fingerprint, made_from
from elastic_export.weights import quantised as room
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from repeated_export import BUDGETS, Seen, inodes, run, write_budgets
from small_export import contents

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]

INT8: dict[str, Any] = {"quantise": "int8"}
FILE = "weights/q8-00001-of-00001.safetensors"


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The matrices that were quantised."""
    names, real = list[str](), room.quantised

    def quantised(checkpoint: Any, matrix: Any, losses: Any) -> Any:
        names.append(matrix.name)
        return real(checkpoint, matrix, losses)

    monkeypatch.setattr(room, "quantised", quantised)
    return names


@pytest.fixture
def full(tmp_path: Path, checkpoint: Path, seen: Seen, rounded: list[str]) -> Path:
    """A bundle of one budget in eight bits; what was done for it is forgotten."""
    run(checkpoint, tmp_path / "out", seen, budgets="full", **INT8)
    assert rounded
    rounded.clear()
    return tmp_path / "out"


def rounding(output: Path, budget: str) -> Any:
    return json.loads((output / f"{budget}.int8" / "report.json").read_text())["rounding"]


@pytest.mark.parametrize("verify", [False, True])
def test_a_budget_is_added_to_the_file_that_is_there(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str], verify: bool
) -> None:
    before = inodes(full)
    result = run(checkpoint, full, seen, budgets="half", add=True, verify=verify, **INT8)
    assert (rounded, seen.said) == ([], [])
    assert inodes(full)[FILE] == before[FILE]
    assert [budget.name for budget in result.manifest.budgets] == ["full.int8", "half.int8"]
    assert Bundle.open(full, "digests")
    run(checkpoint, tmp_path / "half", seen, budgets="half", verify=verify, **INT8)
    assert rounding(full, "half") == rounding(tmp_path / "half", "half") != rounding(full, "full")
    if not verify:
        run(checkpoint, tmp_path / "both", seen, **INT8)
        assert contents(full) == contents(tmp_path / "both")


def test_forms_of_one_budget_that_keep_other_widths_are_told(checkpoint: Path, seen: Seen, full: Path) -> None:
    """A program that asks for the budget would get either."""
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    write_budgets(checkpoint, {**BUDGETS, "half": {"hidden_size": 16}})
    run(checkpoint, full, seen, budgets="half", add=True)
    told = "budget half: half.int8 and half differ in widths or layers; export the older one again, with --add"
    assert seen.said == [told]
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert told not in seen.said
    assert [line for line in seen.said if "differ" in line] == []


def test_a_budget_takes_the_place_of_another(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str]
) -> None:
    before = inodes(full)
    run(checkpoint, full, seen, budgets="half", **INT8)
    assert (rounded, seen.said) == ([], [])
    assert inodes(full)[FILE] == before[FILE]
    run(checkpoint, tmp_path / "new", seen, budgets="half", **INT8)
    assert contents(full) == contents(tmp_path / "new")


def test_other_widths_are_cut_from_the_same_file_and_counted_anew(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str]
) -> None:
    run(checkpoint, full, seen, **INT8)
    before = rounding(full, "half")
    write_budgets(checkpoint, {**BUDGETS, "half": {"hidden_size": 16, "intermediate_size": 32}})
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert (rounded, seen.said) == ([], ["half.int8: made again: other widths or layers"])
    run(checkpoint, tmp_path / "new", seen, **INT8)
    assert rounding(full, "half") == rounding(tmp_path / "new", "half") != before
    assert contents(full) == contents(tmp_path / "new")


def test_killed_while_a_budget_is_counted(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle stays; and what an export before it left beside, quantising something else, goes with the next."""
    before, beside = contents(full), tmp_path / ".out.quantised"
    beside.mkdir()
    (beside / "q8-00001-of-00009.safetensors").write_bytes(b"of another parent")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "measure", dies)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert contents(full) == before
    assert len(list(beside.iterdir())) == 1
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    run(checkpoint, tmp_path / "both", seen, **INT8)
    assert contents(full) == contents(tmp_path / "both")
    assert not beside.exists()
    with monkeypatch.context() as patch:
        patch.setattr(room, "measure", dies)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, full, seen, budgets="half", **INT8, logits="all")
    assert not beside.exists(), "nothing was begun there"


def test_what_is_beside_it_does_not_decide(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str]
) -> None:
    """Engines of other limits, logits of every token: the file is of the parent alone."""
    run(checkpoint, full, seen, budgets="full", logits="all", **INT8)
    assert rounded == []
    run(checkpoint, tmp_path / "new", seen, budgets="full", logits="all", **INT8)
    assert contents(full) == contents(tmp_path / "new")


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named_and_made_again(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str], how: str
) -> None:
    file = full / FILE
    data = bytearray(file.read_bytes())
    data[-1] ^= how == "flipped"
    file.write_bytes(data[: len(data) - (how == "cut")])
    if how == "gone":
        file.unlink()
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert rounded
    told = {"flipped": "damaged", "cut": "of another size than the manifest says", "gone": "missing"}[how]
    assert seen.said == [f"{file}: {told}, so not kept"]
    run(checkpoint, tmp_path / "both", seen, **INT8)
    assert contents(full) == contents(tmp_path / "both")


@pytest.mark.parametrize(("what", "why"), [("exporter_digest", "another exporter"), ("versions", "other versions of")])
def test_another_quantiser_makes_it_again(
    checkpoint: Path, seen: Seen, full: Path, rounded: list[str], monkeypatch: pytest.MonkeyPatch, what: str, why: str
) -> None:
    monkeypatch.setattr(made_from, what, lambda *product: "another")
    run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert rounded
    assert seen.said[0].startswith(f"the parent in eight bits: made again: {why}")
    rounded.clear()
    run(checkpoint, full, seen, budgets="half", add=True, verify=True, **INT8)
    assert (rounded, seen.said) == ([], ["half.int8: made again: it was not verified"]), "full's report says the other"


def test_a_quantiser_that_rounds_otherwise_is_refused_by_the_first_file(
    tmp_path: Path, checkpoint: Path, seen: Seen, rounded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the parent must be quantised again, its bytes tell; that is minutes before a bundle has them all."""
    out, known = tmp_path / "out", room.quantised
    monkeypatch.setattr(room.Quantised.__init__, "__kwdefaults__", {"max_file_bytes": 4000})
    run(checkpoint, out, seen, budgets="full", **INT8)
    first, before = list(rounded), contents(out)
    assert len(list((out / "weights").iterdir())) > 3

    def otherwise(checkpoint: Any, matrix: Any, losses: Any) -> Any:
        return (-array for array in known(checkpoint, matrix, losses))

    monkeypatch.setattr(made_from, "exporter_digest", lambda: "another")
    for quantised in (otherwise, known):  # then the file that the refused one has left beside is found, and read
        rounded.clear()
        monkeypatch.setattr(room, "quantised", quantised)
        with pytest.raises(InputError, match=r"--add, weights/q8-00001-of-\d+\.safetensors: .*, sha256 \w+…, found "):
            run(checkpoint, out, seen, budgets="half", add=True, verify=True, **INT8)
        assert len(rounded) < len(first)
        assert (seen.built, seen.verified, contents(out)) == ([], [], before)
        again, left = seen.said
        assert again == "the parent in eight bits: made again: another exporter"
        assert left.startswith(f"{tmp_path}/.out.quantised: ")  # a model's size, and no word of it but this
        assert " of an export that did not end; the next one that quantises takes up or removes it" in left
    run(checkpoint, out, seen, budgets="half", **INT8)
    assert Bundle.open(out, "digests")


def test_a_parent_that_differs_where_nobody_looks_at_once(
    checkpoint: Path, seen: Seen, full: Path, rounded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its fingerprint is the same, so only the digests of its shards tell."""
    monkeypatch.setattr(fingerprint, "_SAMPLE", 8)
    shutil.rmtree(full)
    run(checkpoint, full, seen, budgets="full", **INT8)
    rounded.clear()
    [shard] = checkpoint.glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"--add, the parent in eight bits: .* found other weights or another config"):
        run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert rounded == []
    run(checkpoint, full, seen, budgets="half", **INT8)
    assert rounded
    assert seen.said == ["the parent in eight bits: made again: other weights or another config"]
    run(checkpoint, tmp_path / "new", seen, budgets="half", **INT8)
    assert contents(full) == contents(tmp_path / "new")


def test_other_matrices_are_odd(tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, rounded: list[str]) -> None:
    """A budget of the file with an odd width takes matrices out of the eight bits, whichever budgets are exported."""
    write_budgets(checkpoint, {**BUDGETS, "odd": {"intermediate_size": 31}})
    told = "--add, the parent in eight bits: expected as in the bundle, whose budgets take slices of it, found other m"
    with pytest.raises(InputError, match=told):
        run(checkpoint, full, seen, budgets="half", add=True, **INT8)
    assert rounded == []
    run(checkpoint, full, seen, budgets="half", **INT8)
    assert rounded
    assert "the parent in eight bits: made again: other matrices" in seen.said
    run(checkpoint, tmp_path / "new", seen, budgets="half", **INT8)
    assert contents(full) == contents(tmp_path / "new")


def test_reports_that_say_nothing(checkpoint: Path, seen: Seen, full: Path, rounded: list[str]) -> None:
    """A damaged one does not, nor one of another program."""
    (full / "full.int8" / "report.json").write_text("{}")
    run(checkpoint, full, seen, budgets="half", **INT8)
    assert rounded
    assert "the parent in eight bits: made again: no report says what it was made from" in seen.said


def test_what_an_ended_export_left_is_told_where_nobody_takes_it_up(
    checkpoint: Path, seen: Seen, tmp_path: Path, full: Path
) -> None:
    beside = tmp_path / ".out.quantised"
    beside.mkdir()
    (beside / "q8-00001-of-00009.safetensors").write_bytes(bytes(2 << 20))
    for options, changed in ({**INT8, "budgets": "full"}, False), ({}, True), ({}, False):
        assert run(checkpoint, full, seen, **options).changed is changed
        told = [text for text in seen.said if text.startswith(f"{beside}: 2.0 MiB of an export that did not end")]
        assert len(told) == 1
    run(checkpoint, full, seen, budgets="half", **INT8)
    assert (seen.said, beside.exists()) == ([], False)


def test_a_plain_export_does_not_take_it(
    tmp_path: Path, checkpoint: Path, seen: Seen, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    run(checkpoint, full, seen, budgets="half")
    assert seen.said == []
    run(checkpoint, tmp_path / "new", seen, budgets="half")
    assert contents(full) == contents(tmp_path / "new")
