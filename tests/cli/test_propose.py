"""`elastic-export budgets propose` on the command line: what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.checkpoint.budgets import nesting_warnings, parse_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.cli import propose as command
from elastic_export.plan.machine import Space
from elastic_export.propose.store import Store
from elastic_export.propose.target import vram_measure
from quantised_checkpoint import write_quantised
from small_checkpoint import PARENT
from small_text_model import TEXT
from sorted_model import ARCH, write_sorted

Run = Callable[..., tuple[int, str, str]]
LARGE, SMALL = f"{0.8 * ARCH.parameters() / 1e3:.0f}K", f"{0.6 * ARCH.parameters() / 1e3:.0f}K"
QUICK = ("--search-tokens", "60", "--tokens", "90", "--rounds", "1")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sorted checkpoint without budgets; read-only by agreement."""
    return write_sorted(tmp_path_factory.mktemp("propose") / "model")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return tmp_path / "text.txt"


@pytest.fixture
def propose(run: Run, model: Path, text: Path, tmp_path: Path) -> Run:
    """`propose(option, …)`: of that model, on that text, into `out.json`, unless an option says otherwise."""

    def call(*options: str) -> tuple[int, str, str]:
        given = {"--checkpoint": str(model), "--text": str(text), "--output": str(tmp_path / "out.json")}
        others = [word for option, value in given.items() if option not in options for word in (option, value)]
        return run("budgets", "propose", *others, *QUICK, *options)

    return call


def test_a_budget_file_that_says_how_it_came_about(propose: Run, model: Path, text: Path, tmp_path: Path) -> None:
    code, out, err = propose("--params", f"{SMALL},{LARGE}", "--names", "small,large")
    assert code == 0, err
    document = json.loads((tmp_path / "out.json").read_text())
    found = Checkpoint.open(model, budgets_file=tmp_path / "out.json")
    assert list(found.budgets) == ["large", "small"]
    assert nesting_warnings(found.architecture, found.budgets.values()) == []
    assert f"{tmp_path / 'out.json'}: proposed by measuring, not the vendor's budgets" in found.warnings
    facts = document["proposed"]
    assert "not the vendor's" in facts["note"]
    assert facts["targets"]["small"] == {"params": round(float(SMALL[:-1]) * 1000)}
    for name, target in facts["targets"].items():
        size = found.budgets[name].architecture(ARCH).parameters()
        assert 0.98 * target["params"] <= size <= target["params"]
    assert facts["search"]["rounds"] == 1
    assert 57 <= facts["search"]["tokens"] <= 60
    assert [layer["layer"] for layer in facts["layers"]][:2] in ([4, 7], [7, 4])
    assert all(axis["sorted"] for axis in facts["axes"].values())
    evaluation = facts["evaluation"]
    assert evaluation["text"]["sha256"] == sha256(text.read_bytes()).hexdigest()
    assert 87 <= evaluation["text"]["tokens"] <= 90
    assert [row["budget"] for row in evaluation["rows"]] == ["(parent)", "large", "small"]
    losses = [row["kl_divergence"] for row in evaluation["rows"]]
    assert losses == sorted(losses)
    assert losses[0] == 0
    assert "proposed by measuring, not the vendor's budgets" in out
    assert "small" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "text.txt"]
    assert "this takes about" in err


def test_vram_at_a_context_and_precision(propose: Run, tmp_path: Path) -> None:
    """Of a small model nearly all of it is the reserve, so that many budgets fit and none is much smaller."""
    measure = vram_measure("fp32", 64)
    limit, request = measure.of(ARCH) - 200_000, ("--max-context", "64", "--precision", "fp32", "--names", "card")
    code, _, err = propose("--vram", "1MiB", *request)
    assert code == 2
    assert f", the smallest that is proposed, to {measure.text(measure.of(ARCH))}, the parent, found 1.00 MiB" in err
    code, _, err = propose("--vram", str(limit), *request)
    assert code == 0, err
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["proposed"]["targets"] == {"card": {"vram": limit, "max_context": 64, "precision": "fp32"}}
    budgets, _ = parse_budgets(document, ARCH, "")
    assert 0.98 * limit <= measure.of(budgets["card"].architecture(ARCH)) <= limit
    [parent, card] = document["proposed"]["evaluation"]["rows"]
    assert card["vram_bytes"] == measure.of(budgets["card"].architecture(ARCH)) < parent["vram_bytes"]


def test_equal_requests_give_equal_files_interrupted_or_not(
    propose: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ("--params", f"{LARGE},{SMALL}")
    assert propose(*request)[0] == 0
    whole = (tmp_path / "out.json").read_bytes()
    put, walks = Store.put, 0

    def interrupted(self: Store, found: dict[str, list[float]]) -> None:
        nonlocal walks
        put(self, found)
        walks += 1
        if walks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "put", interrupted)
    code, _, err = propose(*request, "--force")
    assert code == 130
    assert "what was measured is kept: the same command again goes on from there" in err
    assert (tmp_path / "out.json").read_bytes() == whole
    assert (tmp_path / "out.json.partial").exists()
    code, _, err = propose(*request, "--force")
    assert code == 0
    assert re.search(r"out\.json\.partial: \d+ measurements are there already", err)
    assert "layers 0 to 8" not in err
    assert (tmp_path / "out.json").read_bytes() == whole


def test_vram_of_engines_in_eight_bits(propose: Run, tmp_path: Path) -> None:
    measure, plain = vram_measure("bf16", 64, "int8"), vram_measure("bf16", 64)
    assert measure.of(ARCH) < plain.of(ARCH)
    limit = measure.of(ARCH) - 50_000
    request = ("--vram", str(limit), "--max-context", "64", "--precision", "bf16", "--names", "card")
    code, _, err = propose(*request, "--quantize", "int8")
    assert code == 0, err
    document = json.loads((tmp_path / "out.json").read_text())
    facts = {"vram": limit, "max_context": 64, "precision": "bf16", "quantize": "int8"}
    assert document["proposed"]["targets"] == {"card": facts}
    budgets, _ = parse_budgets(document, ARCH, "")
    assert 0.98 * limit <= measure.of(budgets["card"].architecture(ARCH)) <= limit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--params, --vram: expected one of them, found neither. Write --params 9B,6B"),
        (["--params", "1M", "--vram", "1GiB"], "--params, --vram: expected one of them, found both"),
        (["--params", "1B"], f" proposed, to {ARCH.parameters() / 1000:.3f}K, the parent, found 1.00B"),
        (["--params", "1K"], "--params 1k: expected from "),
        (["--params", f"{LARGE},{LARGE}"], "--params: expected sizes that are more than 2% apart, found "),
        (["--params", "big"], "--params: expected a count such as 9B or 310M, found the text 'big'"),
        (["--params", LARGE, "--names", "a,b"], "--names: expected 1 names, one a target, found 2"),
        (["--params", LARGE, "--text", "none.txt"], "none.txt: expected a text file, found No such file or directory"),
        (["--params", LARGE, "--text", "."], ".: expected a text file, found Is a directory"),
        (["--params", LARGE, "--search-tokens", "5000"], "expected 5000 tokens or more to compare budgets on, found 3"),
        (["--params", LARGE, "--search-tokens", "0"], "--search-tokens: expected at least 1"),
        (["--params", LARGE, "--rounds", "0"], "--rounds: expected at least 1"),
        (["--params", LARGE, "--context", "1"], "--context: expected 2 tokens or more"),
        (["--params", LARGE, "--tokenizer", "."], ".: expected tokenizer.json, found no such file"),
        (["--vram", "700MiB", "--max-context", "0"], "--max-context: expected at least 1"),
        (["--params", LARGE, "--quantize", "int8"], "--quantize: expected --vram beside it, found --params"),
        (["--vram", "1GiB", "--quantize", "int8", "--precision", "fp32"], "--quantize int8: expected --precision bf16"),
        (["--params", LARGE, "--output", "there.json"], "there.json: expected no such file yet, found one"),
        (["--params", LARGE, "--output", "text.txt", "--force"], "--output: expected another file than --text, found"),
        (["--params", LARGE, "--output", "no/such.json"], "expected a file in a folder that exists, found no such"),
        (["--params", LARGE, "--checkpoint", "none"], "--checkpoint: expected a folder or a Hugging Face repository"),
    ],
)  # fmt: skip
def test_a_request_at_fault_is_refused_before_any_work(
    options: list[str], message: str, propose: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("mine")
    code, out, err = propose(*options)
    assert (code, out) == (2, "")
    assert message in err
    assert "this takes about" not in err
    assert Path("there.json").read_text() == "mine"
    assert sorted(os.listdir()) == ["text.txt", "there.json"]


@pytest.mark.parametrize("data", [b"", b"\xff\xfea\0", b"a", b"a few words"])
def test_a_text_at_fault_is_refused(data: bytes, propose: Run, text: Path) -> None:
    text.write_bytes(data)
    code, out, err = propose("--params", LARGE)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {text}: expected ")


def test_without_a_text_or_a_checkpoint_it_says_what_to_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELASTIC_CHECKPOINT", raising=False)
    request = ("budgets", "propose", "--params", "9B", "--output", str(tmp_path / "out.json"))
    code, _, err = run(*request)
    assert (code, "--text: expected a text to measure on, found none. Name a file in UTF-8" in err) == (2, True)
    code, _, err = run(*request, "--text", str(tmp_path))
    assert (code, "--checkpoint: expected a checkpoint to cut, found none" in err) == (2, True)


def test_a_nan_is_told_and_nothing_is_written(propose: Run, tmp_path: Path) -> None:
    name = "backbone.layers.2.mixer.q_proj.weight"

    def spoil(weights: dict[str, Any]) -> None:
        weights[name] = np.full_like(weights[name], np.nan)

    source = write_sorted(tmp_path / "spoilt", spoil)
    code, out, err = propose("--params", LARGE, "--checkpoint", str(source))
    assert (code, out) == (2, "")
    assert f"tensor {name}: expected finite values, found a NaN or an infinity" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spoilt", "text.txt"]


def test_a_checkpoint_that_nobody_sorted_is_warned_about(propose: Run, tmp_path: Path) -> None:
    source = write_sorted(tmp_path / "mixed", falling=False)
    code, _, err = propose("--params", LARGE, "--checkpoint", str(source))
    assert code == 0, err
    assert "note: not sorted by importance: " in err
    axes = json.loads((tmp_path / "out.json").read_text())["proposed"]["axes"]
    assert not axes["hidden_size"]["sorted"]


def test_a_parent_whose_columns_go_in_blocks_is_refused(run: Run, text: Path, tmp_path: Path) -> None:
    """Cuts are measured at any column: the first inside a block of NVFP4 would end the search."""
    arch, folder = replace(PARENT, hidden_size=64, ffn_sizes=(48,) * 3), tmp_path / "nvfp4"
    weights = random_weights(arch, np.random.default_rng(4))
    write_quantised(folder, arch, weights, lambda module: "NVFP4" if module.endswith("in_proj") else None)
    (folder / "tokenizer.json").write_bytes(b"{}")  # not reached
    code, out, err = run("budgets", "propose", "--checkpoint", str(folder), "--params", "10K", "--text", str(text),
                         "--output", str(tmp_path / "out.json"))  # fmt: skip
    assert (code, out) == (2, "")
    first = "tensor 'backbone.layers.0.mixer.in_proj.weight': expected a matrix that can be cut at any column"
    assert (
        f"{first}, found one in NVFP4, of which 16 columns share a scale. Propose budgets of the checkpoint that it "
        "was quantised from, or of one in FP8; to export this one by them, round their widths to whole blocks in a "
        "budget file of your own (--budgets FILE)." in err
    )
    assert not list(tmp_path.glob("out.json*"))


def test_too_little_memory_is_refused_unless_it_is_allowed(propose: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "free_memory", lambda: Space(1 << 20, "this machine"))
    code, _, err = propose("--params", LARGE)
    assert code == 1
    assert "error: memory: expected about " in err
    code, _, _ = propose("--params", LARGE, "--allow-short")
    assert code == 0


def test_the_command_that_the_missing_file_leads_to_works(run: Run, model: Path, text: Path, tmp_path: Path) -> None:
    """With the file that it writes, the command that had failed plans."""
    source = tmp_path / "model"
    os.symlink(model, source)
    own = tmp_path / "my copy"
    own.mkdir()
    for file in model.iterdir():
        os.link(file, own / file.name)
    export = ("--checkpoint", str(own), "--target", "rtx5080", "--budget", "all", "--dry-run")
    code, _, err = run(*export)
    assert code == 2
    [advised] = re.findall(r"elastic-export (budgets propose .*)\.$", err.strip())
    words = shlex.split(advised.replace("--text FILE", f"--text {text}"))
    code, _, err = run(*words, *QUICK)
    assert code == 0, err
    code, _, err = run(*export)
    assert code == 0, err
    assert "proposed by measuring" in err
