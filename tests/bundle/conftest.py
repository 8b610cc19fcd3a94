"""A small bundle's parts: a parent of four layers, two budgets, manifests as an export writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from closed_form import ports, state_entries
from elastic_export.bundle.consumer_rules import RULES
from elastic_export.bundle.writer import BundleWriter
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.reckoning import budget_size, fits, has_scalar_widths, widths
from elastic_runtime.fit.targets import load_targets
from elastic_runtime.format.budget_size import Activation
from elastic_runtime.format.manifest import BudgetEntry, Checkpoint, EngineEntry, Manifest, Plugin, Status

PARENT = Architecture("M-*M", 256, 32, (64,), (8, 8), 4, 2, 16, 4, 4, 2, 8, 1e-5, (0.0, float("inf")))
BUDGETS = {
    "big": Budget.full(PARENT, "big"),
    "small": Budget("small", 24, (48,), (4, 4), 3, 2, (3,)),
}


def engine_entry(budget: str, target: str, context: int, file: str) -> EngineEntry:
    model = BUDGETS[budget].architecture(PARENT)
    size = budget_size(budget, model, "bf16", activation=Activation(1_000_000))
    inputs, outputs = ports(model, "bf16", "plugin")
    plugin = Plugin("libelastic_plugins.so", "tensorrt-rtx-1.7")
    return EngineEntry(
        target=target,
        compute_capabilities=load_targets()[target].capabilities("bf16"),
        file=file,
        flavour="tensorrt-rtx",
        version="1.7.1",
        ops="plugin",
        plugin=plugin,
        max_context=context,
        max_tokens=min(256, context),
        max_batch=1,
        inputs=inputs,
        outputs=outputs,
        activation=1_000_000,
        activation_measured=False,
        status=Status("built"),
        fits=fits(size, load_targets()[target], context=context, batch=1),
    )


def budget_entry(budget: str, engines: tuple[EngineEntry, ...]) -> BudgetEntry:
    model = BUDGETS[budget].architecture(PARENT)
    return BudgetEntry(
        name=budget,
        parameters=model.parameters(),
        pattern=model.pattern,
        layers=len(model.pattern),
        kept_layers=BUDGETS[budget].kept_layers(PARENT),
        widths=widths(model),
        scalar_widths=has_scalar_widths(model),
        weight_bytes=model.parameters() * 2,
        state_bytes=model.state_bytes(2),
        kv_bytes_per_token=model.kv_bytes_per_token(2),
        states=state_entries(PARENT, BUDGETS[budget]),
        model=f"{budget}/model.onnx",
        weights=f"{budget}/weights.json",
        golden=None,
        report=None,
        engines=engines,
    )


def manifest_of(*budgets: BudgetEntry, fingerprint: str = "f" * 64) -> Manifest:
    engines = [engine for budget in budgets for engine in budget.engines]
    return Manifest(
        producer="elastic-export 0.1.0",
        demo=False,
        checkpoint=Checkpoint("parent", fingerprint),
        precision="bf16",
        weight_mode="shared",
        logits="last",
        options={  # in the words and the order of the request
            "budgets": tuple(budget.name for budget in budgets),
            "targets": tuple(dict.fromkeys(engine.target for engine in engines)),
            "max_contexts": tuple(dict.fromkeys(engine.max_context for engine in engines)),
            "max_batch": 1,
        },
        versions={"tensorrt-rtx": "1.7.1"},
        rules=RULES,
        budgets=budgets,
    )


Export = Callable[..., Manifest]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of the checkpoint, behind a symbolic link as in the Hugging Face cache."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "blob").write_bytes(b"weights " * 1000)
    (folder / "model.safetensors").symlink_to("blob")
    return folder / "model.safetensors"


@pytest.fixture
def export(shard: Path) -> Export:
    """Write a bundle: export(output, {"big": [("rtx5080", 1024)]}, text="what model.onnx says", **writer options)."""

    def run(
        output: Path,
        asked: dict[str, list[tuple[str, int]]],
        *,
        text: str = "",
        fingerprint: str = "f" * 64,
        before_finish: Callable[[BundleWriter], None] = lambda writer: None,
        **options: object,
    ) -> Manifest:
        with BundleWriter(output, **options) as writer:  # type: ignore[arg-type]
            writer.place(shard, "weights/model.safetensors")
            entries = []
            for budget, engines in asked.items():
                folder = writer.folder(budget)
                (folder / "model.onnx").write_text(f"onnx of {budget} {text}")
                (folder / "weights.json").write_text("{}")
                for target, context in engines:
                    (folder / f"{target}.engine").write_text(f"engine for {target} at {context} {text}")
                made = tuple(engine_entry(budget, t, c, f"{budget}/{t}.engine") for t, c in engines)
                entries.append(budget_entry(budget, made))
            before_finish(writer)
            return writer.finish(manifest_of(*entries, fingerprint=fingerprint))

    return run


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(name="tree")
def tree_fixture() -> Callable[[Path], dict[str, bytes]]:
    return tree
