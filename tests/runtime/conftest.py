"""A 12B-shaped bundle's manifest, as the exporter writes it: three published models of the family as budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from closed_form import ports, state_entries
from elastic_export.bundle.consumer_rules import RULES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.reckoning import budget_size, fits, widths
from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError
from elastic_runtime.fit.targets import load_targets
from elastic_runtime.format.budget_size import Activation
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.manifest import BudgetEntry, Checkpoint, EngineEntry, FileEntry, Manifest, Status
from elastic_runtime.opening import loading
from family import SHAPES

ACTIVATION = {"12b": 207_000_000, "9b": 190_000_000, "4b": 150_000_000}


def _engine(name: str, target: str, context: int) -> EngineEntry:
    model, activation = SHAPES[name], Activation(ACTIVATION[name])
    inputs, outputs = ports(model, "bf16", "native")
    card = load_targets()[target]
    return EngineEntry(
        target=target,
        compute_capabilities=card.capabilities("bf16"),
        file=f"{name}/{target}.{context}.engine",
        flavour="tensorrt-rtx",
        version="1.7.1",
        ops="native",
        plugin=None,
        max_context=context,
        max_tokens=256,
        max_batch=4,
        inputs=inputs,
        outputs=outputs,
        activation=activation.bytes,
        activation_measured=False,
        status=Status("built"),
        fits=fits(budget_size(name, model, "bf16", activation=activation), card, context=context, batch=4),
    )


def _budget(name: str, target: str, contexts: tuple[int, ...]) -> BudgetEntry:
    model = SHAPES[name]
    return BudgetEntry(
        name=name,
        parameters=model.parameters(),
        pattern=model.pattern,
        layers=len(model.pattern),
        kept_layers=tuple(range(len(model.pattern))),
        widths=widths(model),
        scalar_widths=True,
        weight_bytes=2 * model.parameters(),
        state_bytes=model.state_bytes(2),
        kv_bytes_per_token=model.kv_bytes_per_token(2),
        states=state_entries(model, Budget.full(model, name)),
        model=f"{name}/model.onnx",
        weights=f"{name}/weights.json",
        golden=None,
        report=None,
        engines=tuple(_engine(name, target, context) for context in contexts),
    )


@pytest.fixture(scope="session")
def shapes() -> dict[str, Architecture]:
    return SHAPES


@pytest.fixture
def budgets() -> tuple[BudgetEntry, ...]:
    """Three budgets with rtx5090 engines of 4096, 8192 and 16384 tokens, smallest first."""
    return tuple(_budget(name, "rtx5090", (4096, 8192, 16384)) for name in ("4b", "9b", "12b"))


@pytest.fixture
def manifest(budgets: tuple[BudgetEntry, ...]) -> Manifest:
    paths = [path for b in budgets for path in (b.model, b.weights, *(e.file for e in b.engines)) if path]
    files = tuple(FileEntry(path, 10, "0" * 64) for path in [*paths, "weights/model.safetensors"])
    return Manifest(
        producer="elastic-export 0.1.0",
        demo=False,
        checkpoint=Checkpoint("parent", "f" * 64),
        precision="bf16",
        weight_mode="shared",
        logits="last",
        options={"max_batch": 4, "max_context": (4096, 8192, 16384), "ops": "native"},
        versions={"torch": "2.13.0", "tensorrt-rtx": "1.7.1"},
        rules=RULES,
        budgets=budgets,
        files=files,
    )


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest) -> Path:
    """A bundle on disk whose files hold a few bytes each; one of them is above the size that is always digested."""
    folder, entries = tmp_path / "bundle", []
    for entry in manifest.files:
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.path.encode() * (50_000 if "weights/" in entry.path else 1))
        entries.append(FileEntry(entry.path, *file_digest(path)))
    (folder / "manifest.json").write_text(replace(manifest, files=tuple(entries)).to_json(), "utf-8")
    return folder


@pytest.fixture
def reseal() -> Callable[[str], bytes]:
    """Put a valid seal on an edited manifest."""
    import re

    from elastic_runtime.format.seal import EMPTY, seal

    return lambda text: seal(re.sub(r'"seal": "[0-9a-f]{64}"', f'"seal": "{EMPTY}"', text)).encode()


@pytest.fixture
def large_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under onnxruntime budget large does not open; the others do."""
    opened = loading.open_onnx

    def failing(bundle: Bundle, budget: BudgetEntry, **rest: Any) -> Backend:
        if budget.name == "large":
            raise BuildError("large", expected="luck", found="none")
        return opened(bundle, budget, **rest)

    monkeypatch.setattr(loading, "open_onnx", failing)
