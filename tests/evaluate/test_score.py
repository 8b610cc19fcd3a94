"""Sums over blocks of the vocabulary against the formulas over all of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_export.evaluate.score import Block, Partition, Score, Scored

TOKENS = 7


def by_blocks(reference: torch.Tensor, own: torch.Tensor, targets: torch.Tensor, rows: int, together: int) -> Scored:
    partition, score = Partition(len(targets)), Score(targets)
    for first in range(0, own.shape[1], rows):
        for begin in range(0, len(targets), together):
            tokens, vocab = slice(begin, begin + together), slice(first, first + rows)
            theirs = reference[tokens, vocab].double()
            block = Block(tokens, first, theirs, *partition.add(tokens, first, theirs))
            score.add(block, own[tokens, vocab])
    return score.result(partition)


def whole(reference: torch.Tensor, own: torch.Tensor, targets: torch.Tensor) -> Scored:
    p, q = (logits.double().log_softmax(dim=1) for logits in (reference, own))
    divergence = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
    agreed = (reference.argmax(dim=1) == own.argmax(dim=1)).sum()
    return Scored(float(torch.nn.functional.nll_loss(q, targets, reduction="sum")), float(divergence), int(agreed))


@given(
    seed=st.integers(0, 1 << 30),
    vocab=st.integers(1, 40),
    rows=st.integers(1, 45),
    together=st.integers(1, 8),
    scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]),
)
@settings(max_examples=200, deadline=None)
def test_blocks_give_what_the_whole_gives(seed: int, vocab: int, rows: int, together: int, scale: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    reference, noise = (scale * torch.randn(TOKENS, vocab, generator=rng) for _ in range(2))
    own = reference + noise / 10
    targets = torch.randint(0, vocab, (TOKENS,), generator=rng)
    found, expected = by_blocks(reference, own, targets, rows, together), whole(reference, own, targets)
    assert found.nats == pytest.approx(expected.nats, rel=1e-12, abs=1e-11)
    assert found.divergence == pytest.approx(expected.divergence, rel=1e-9, abs=1e-11 * max(1.0, scale))
    assert found.agreed == expected.agreed


def test_a_model_beside_itself_diverges_by_nothing_at_all() -> None:
    logits = torch.randn(TOKENS, 40)
    found = by_blocks(logits, logits, torch.zeros(TOKENS, dtype=torch.int64), 7, 3)
    assert (found.divergence, found.agreed) == (0.0, TOKENS)


def test_of_equal_logits_the_lowest_id_counts_in_whichever_block_it_is() -> None:
    tied = torch.tensor([[0.0, 2.0, 1.0, 2.0, 2.0]])
    lowest = torch.tensor([[0.0, 9.0, 0.0, 0.0, 0.0]])
    for rows in range(1, 6):
        assert by_blocks(tied, lowest, torch.zeros(1, dtype=torch.int64), rows, 1).agreed == 1
