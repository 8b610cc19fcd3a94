"""The reference against an implementation by others: `transformers`' NemotronHForCausalLM in float32.

Up to 5.23 it clamps dt from below at `time_step_min` (0.001) in its chunk form, whatever `time_step_limit` says, and
not at all in its one-token form. Its mixers keep the limits as an attribute, which we set; models with limits decode
two tokens a call, so that they take the chunk form. Its cache cannot be used without an attention layer ("can only be
called on Attention layers"): there our steps meet its logits of the whole text, position by position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.checkpoint.synthetic import Weights, random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.reference import empty_state
from masked_parent import full_masks, load_reference

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.xdist_group("transformers")  # one worker imports its models

TOLERANCE = 1e-5  # float32, sums in another order: 3e-6 is the worst seen
BATCH, PROMPT, TOTAL = 2, 13, 25
DEGENERATE = ["M", "*", "-", "M-", "-*", "MM*"]


def oracle(arch: Architecture, weights: Weights, *, patched: bool = True) -> Any:
    """Their model with our weights; chunks of 8 tokens, so that a prompt crosses chunks."""
    config = transformers.NemotronHConfig(
        hybrid_override_pattern=arch.pattern,
        vocab_size=arch.vocab_size,
        hidden_size=arch.hidden_size,
        intermediate_size=arch.ffn_sizes[0] if arch.ffn_sizes else 8,
        num_attention_heads=arch.attention_heads,
        num_key_value_heads=arch.kv_heads,
        head_dim=arch.attention_head_dim,
        ssm_state_size=arch.ssm_state,
        mamba_num_heads=arch.mamba_heads[0] if arch.mamba_heads else arch.ssm_groups,
        mamba_head_dim=arch.mamba_head_dim,
        n_groups=arch.ssm_groups,
        conv_kernel=arch.conv_kernel,
        layer_norm_epsilon=arch.epsilon,
        chunk_size=8,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.NemotronHForCausalLM(config)
    state = {name.replace("backbone.", "model."): torch.from_numpy(array) for name, array in weights.items()}
    model.load_state_dict(state, assign=True, strict=True)
    for module in model.modules():
        if patched and hasattr(module, "time_step_limit"):
            module.time_step_limit = arch.time_step_limit
    return model.eval()


def theirs(model: Any, ids: torch.Tensor, cache: Any, position: int) -> torch.Tensor:
    places = torch.arange(position, position + ids.shape[1])[None]
    logits: torch.Tensor = model(ids, past_key_values=cache, use_cache=cache is not None, position_ids=places).logits
    return logits


def check(arch: Architecture, weights: Weights, rng: np.random.Generator, distance: Callable[..., float]) -> None:
    """Logits of every token: the whole text at once, then a prompt and steps over both implementations' states."""
    model, masks = oracle(arch, weights), full_masks(arch)
    ours = load_reference(arch, weights.__getitem__, every_token=True)
    ids = torch.from_numpy(rng.integers(0, arch.vocab_size, (BATCH, TOTAL)))

    def call(state: Any, first: int, last: int) -> tuple[torch.Tensor, Any]:
        vectors = torch.full((BATCH,), first), torch.full((BATCH,), last - first)
        return ours(ids[:, first:last], *vectors, state, masks)  # type: ignore[no-any-return]

    expected = theirs(model, ids, None, 0)
    whole, _ = call(empty_state(arch, BATCH, TOTAL, torch.float32), 0, TOTAL)
    assert distance(whole, expected) <= TOLERANCE

    cache = transformers.DynamicCache(config=model.config) if "*" in arch.pattern else None
    state = empty_state(arch, BATCH, TOTAL, torch.float32)
    step = 1 if arch.time_step_limit[0] == 0 else 2
    for first, last in [(0, PROMPT), *((p, p + step) for p in range(PROMPT, TOTAL, step))]:
        logits, state = call(state, first, last)
        part = expected[:, first:last] if cache is None else theirs(model, ids[:, first:last], cache, first)
        assert distance(logits, part) <= TOLERANCE, (first, last)


@pytest.mark.parametrize("seed", range(24))
def test_random_architectures_agree_in_prefill_and_decode(
    seed: int, model_of: Callable[[int], Any], distance: Callable[..., float]
) -> None:
    model = model_of(seed)
    check(model.arch, model.weights, model.rng, distance)


@pytest.mark.parametrize("pattern", DEGENERATE)
def test_patterns_of_one_or_two_kinds_agree(
    pattern: str, model_of: Callable[[int], Any], distance: Callable[..., float]
) -> None:
    model = model_of(4)
    arch = replace(
        model.arch,
        pattern=pattern,
        ffn_sizes=(37,) * pattern.count("-"),
        mamba_heads=(model.arch.ssm_groups * 3,) * pattern.count("M"),
    )
    check(arch, random_weights(arch, model.rng), model.rng, distance)


def test_their_clamp_would_show(model_of: Callable[[int], Any], distance: Callable[..., float]) -> None:
    """Without the patch the two differ: the tolerance is tight enough to see a clamp at 0.001."""
    model = model_of(2)
    assert model.arch.time_step_limit[0] == 0
    ids = model.ids(BATCH, TOTAL)
    plain, patched = (
        theirs(oracle(model.arch, model.weights, patched=patched), ids, None, 0) for patched in (False, True)
    )
    assert distance(plain, patched) > 10 * TOLERANCE
