from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from elastic_export.bundle.fingerprint import encoded, fingerprint
from elastic_export.layers.architecture import Architecture

INF = float("inf")
PARENT = Architecture("M*-M", 97, 48, (72,), (8, 8), 12, 2, 16, 4, 8, 2, 16, 1e-5, (0.0, INF))
Tensors = dict[str, np.ndarray]
BIG = np.arange(5000, dtype=np.float32)


def write(folder: Path, *shards: Tensors) -> list[Path]:
    folder.mkdir()
    for i, tensors in enumerate(shards):
        save_file(tensors, folder / f"{i}.safetensors")
    return sorted(folder.iterdir())


@pytest.fixture
def base(tmp_path: Path) -> str:
    return fingerprint(write(tmp_path / "base", {"a": BIG, "b": BIG[:3]}), PARENT)


def test_resharding_and_moving_change_nothing(tmp_path: Path, base: str) -> None:
    shards = write(tmp_path / "other", {"b": BIG[:3]}, {"a": BIG})
    assert fingerprint(shards, PARENT) == fingerprint(reversed(shards), PARENT) == base


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"a": a},
        lambda a: {"a": a, "c": a[:3]},
        lambda a: {"a": a.reshape(50, 100), "b": a[:3]},
        lambda a: {"a": a.view(np.int32), "b": a[:3]},
        lambda a: {"a": a + (np.arange(5000) == 0), "b": a[:3]},
        lambda a: {"a": a + (np.arange(5000) == 4999), "b": a[:3]},
        lambda a: {"a": a, "b": a[3:6]},
    ],
    ids=["missing", "renamed", "shape", "dtype", "first element", "last element", "small tensor"],
)
def test_any_other_weights_are_told_apart(tmp_path: Path, base: str, change: Callable[[np.ndarray], Tensors]) -> None:
    kinds = (np.float32, np.int32)  # adding a bool made it float64
    tensors = {name: a if a.dtype in kinds else a.astype(np.float32) for name, a in change(BIG).items()}
    assert fingerprint(write(tmp_path / "other", tensors), PARENT) != base


def test_another_epsilon_is_another_model(tmp_path: Path, base: str) -> None:
    assert fingerprint([tmp_path / "base" / "0.safetensors"], replace(PARENT, epsilon=1e-6)) != base


def test_it_says_what_it_does_not_see(tmp_path: Path, base: str) -> None:
    middle = BIG + (np.arange(5000) == 2500)
    shards = write(tmp_path / "other", {"a": middle.astype(np.float32), "b": BIG[:3]})
    assert fingerprint(shards, PARENT) == base


def test_the_name_of_a_class_is_no_fact(tmp_path: Path, base: str) -> None:
    @dataclass(frozen=True)
    class Renamed(Architecture):
        later: int = 0

    renamed = Renamed(*(getattr(PARENT, field) for field in Architecture.__dataclass_fields__))
    assert fingerprint([tmp_path / "base" / "0.safetensors"], renamed) == base


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        (
            PARENT,
            "Architecture(pattern='M*-M', vocab_size=97, hidden_size=48, ffn_sizes=(72,), mamba_heads=(8, 8), "
            "mamba_head_dim=12, ssm_groups=2, ssm_state=16, conv_kernel=4, attention_heads=8, kv_heads=2, "
            "attention_head_dim=16, epsilon=1e-05, time_step_limit=(0.0, inf))",
        ),
        (
            Architecture("-", 97, 48, (72,), (), 12, 2, 16, 4, 8, 2, 16, 0.001, (0.001, 0.1)),
            "Architecture(pattern='-', vocab_size=97, hidden_size=48, ffn_sizes=(72,), mamba_heads=(), "
            "mamba_head_dim=12, ssm_groups=2, ssm_state=16, conv_kernel=4, attention_heads=8, kv_heads=2, "
            "attention_head_dim=16, epsilon=0.001, time_step_limit=(0.001, 0.1))",
        ),
    ],
    ids=["all kinds", "no mixers"],
)
def test_the_encoding_stays(architecture: Architecture, text: str) -> None:
    """These bytes are in the digests of bundles that exist, to which `--add` adds."""
    assert encoded(architecture) == text


def test_the_digest_stays(base: str) -> None:
    assert base == "6304430fa04bc18f0ac1f376a1e8328c3912bf7194e35b9f8cce685ab0df683f"


def test_every_number_of_an_architecture_counts(tmp_path: Path, base: str) -> None:
    for field in Architecture.__dataclass_fields__:
        value = getattr(PARENT, field)
        other = {str: "M*M-", int: 7, float: 0.5, tuple: (3,)}[type(value)]
        changed = replace(PARENT, **{field: other})
        assert fingerprint([tmp_path / "base" / "0.safetensors"], changed) != base, field
