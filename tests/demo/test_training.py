"""The training itself, on a model of a few thousand parameters: it learns, resumes and refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import training as module
from demo_text import Corpus, encoded, read_corpus, train_tokenizer
from sub_model import SubModel, initial_parameters
from training import Batches, Run, Training, bits_per_byte, elastic_loss, language_loss

from elastic_export.layers.budget import Budget
from small_export import ARCH

RUN = Run(steps=12, muon=0.02, adamw=3e-3, seed=5)
SMALL = Budget("small", 40, (48,), (4, 4), 8, 4, (2,))


@pytest.fixture
def tokens() -> np.ndarray:
    """A text with something to learn in it."""
    return np.tile(np.arange(ARCH.vocab_size, dtype=np.uint16), 40)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 8)
    monkeypatch.setattr(module, "SHARES", ((3, 3, 2), (4, 3, 1)))
    monkeypatch.setattr(module, "TOKENS", 24)
    monkeypatch.setattr(module, "_SAVED", 5)


def trained(file: Path, tokens: np.ndarray, run: Run = RUN) -> Training:
    training = Training(file, run, initial_parameters(ARCH, 0))
    assert training.go_on(language_loss(SubModel(ARCH)), Batches(tokens, run.seed), math.inf)
    return training


def same(a: Training, b: Training) -> bool:
    return all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


def test_it_learns(tmp_path: Path, tokens: np.ndarray) -> None:
    training = trained(tmp_path / "a", tokens, replace(RUN, steps=40))
    assert training.log[0]["loss"] > 4 > 2 * training.log[-1]["loss"]


def test_twice_and_once_with_a_stop_are_equal(tmp_path: Path, tokens: np.ndarray) -> None:
    once, twice = trained(tmp_path / "a", tokens), trained(tmp_path / "b", tokens)
    assert same(once, twice)
    stopped = Training(tmp_path / "c", RUN, initial_parameters(ARCH, 0))
    loss, batches = language_loss(SubModel(ARCH)), Batches(tokens, RUN.seed)
    assert not stopped.go_on(loss, batches, minutes=0)
    assert stopped.step == 1
    again = Training(tmp_path / "c", RUN, initial_parameters(ARCH, 1))  # what it begins with is in the file
    assert again.step == 1
    assert again.go_on(loss, batches, math.inf)
    assert same(once, again)
    other = trained(tmp_path / "d", tokens, replace(RUN, seed=6))
    assert not same(once, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_steps_of_the_demo_twice_and_with_a_stop_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that is shipped, with short windows."""
    from train_demo import ARCH as DEMO

    monkeypatch.setattr(module, "_SAVED", 80)
    torch.set_flush_denormal(True)  # as train_demo.py does
    run, tokens = replace(RUN, steps=200), np.random.default_rng(0).integers(0, DEMO.vocab_size, 9999, np.uint16)
    loss, batches = language_loss(SubModel(DEMO)), Batches(tokens, run.seed)

    def ended(name: str) -> Training:
        training = Training(tmp_path / name, run, initial_parameters(DEMO, 0))
        assert training.go_on(loss, batches, math.inf)
        return training

    def killed(parameters: dict[str, torch.Tensor], step: int, window: torch.Tensor) -> dict[str, torch.Tensor]:
        if step == 120:
            raise KeyboardInterrupt
        return loss(parameters, step, window)

    once, twice = ended("once"), ended("twice")
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path / "stopped", run, initial_parameters(DEMO, 0)).go_on(killed, batches, math.inf)
    assert Training(tmp_path / "stopped", run, initial_parameters(DEMO, 0)).step == 80, "the last state on the disk"
    assert same(once, twice)
    assert same(once, ended("stopped"))
    torch.set_flush_denormal(False)


def test_a_kill_while_the_state_is_written_leaves_the_older_one(
    tmp_path: Path, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    training = Training(tmp_path / "a", RUN, initial_parameters(ARCH, 0))
    loss, batches = language_loss(SubModel(ARCH)), Batches(tokens, RUN.seed)
    training.go_on(loss, batches, minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr(module.torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            training.go_on(loss, batches, math.inf)
    assert Training(tmp_path / "a", RUN, initial_parameters(ARCH, 0)).step == 1


def test_a_state_of_another_run_is_refused(tmp_path: Path, tokens: np.ndarray) -> None:
    trained(tmp_path / "a", tokens)
    with pytest.raises(click.ClickException, match="of another run"):
        Training(tmp_path / "a", replace(RUN, muon=0.03), initial_parameters(ARCH, 0))


def test_rates_rise_stay_and_fall() -> None:
    run = Run(steps=100, muon=1, adamw=1, seed=0, warm=0.1, flat=0.5)
    rates = [run.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:51]) == {1.0}
    assert rates[75] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.03


def test_elastic_training_mends_the_small_budget(tmp_path: Path, tokens: np.ndarray) -> None:
    full = trained(tmp_path / "full", tokens, replace(RUN, steps=60))
    teacher = {name: tensor.detach() for name, tensor in full.parameters.items()}
    run = replace(RUN, steps=60)
    budgets = [Budget.full(ARCH, "large"), replace(SMALL, name="medium", hidden_size=44), SMALL]
    training = Training(tmp_path / "elastic", run, teacher)
    before = bits_per_byte(SubModel(ARCH, SMALL), teacher, tokens, len(tokens))
    training.go_on(elastic_loss(ARCH, teacher, budgets, run), Batches(tokens, 7), math.inf)
    after = bits_per_byte(SubModel(ARCH, SMALL), training.parameters, tokens, len(tokens))
    large = bits_per_byte(SubModel(ARCH), training.parameters, tokens, len(tokens))
    assert after < before / 2
    assert large < after
    assert training.log[-1]["small KL"] < training.log[0]["small KL"]


def test_bits_per_byte_are_those_of_the_probabilities(tokens: np.ndarray) -> None:
    """A model that knows nothing needs log2(V) bits a token; of a text of two bytes a token, half of that a byte."""
    parameters = initial_parameters(ARCH, 0) | {"lm_head.weight": torch.zeros(ARCH.vocab_size, ARCH.hidden_size)}
    found = bits_per_byte(SubModel(ARCH), parameters, tokens, 2 * len(tokens))
    assert found == pytest.approx(math.log2(ARCH.vocab_size) / 2, rel=1e-6)


def test_the_corpus_holds_files_out_and_the_tokenizer_gives_them_back(tmp_path: Path) -> None:
    for number in range(300):
        folder = tmp_path / ("test" if number % 2 else "lib")
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_text(f"def f{number}(x):\n    return '{number} é'\n")
    (tmp_path / "encodings").mkdir()
    (tmp_path / "encodings/table.py").write_text("table = 1\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    corpus = read_corpus(tmp_path)
    assert isinstance(corpus, Corpus)
    inside = [f"def f{n}(x):" in corpus.training for n in range(300)]
    outside = [f"def f{n}(x):" in corpus.held_out for n in range(300)]
    assert not any(a and b for a, b in zip(inside, outside, strict=True))
    assert 0 < sum(outside) < 40
    assert not any(outside[1::2]), "tests are not measured on"
    assert "table" not in corpus.training
    tokenizer = train_tokenizer(corpus.training, 400)
    assert tokenizer.get_vocab_size() == 400
    ids = encoded(tokenizer, corpus.held_out)
    assert tokenizer.decode(ids.tolist()) == corpus.held_out
    assert len(ids) < len(corpus.held_out.encode()) / 2
