"""Stage `machine`: what is there, and that nvidia-smi can neither take it away nor name the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.redaction import LEFT_OUT
from elastic_runtime.bringup.stages import machine

Program = Callable[[str, str], Path]


def test_the_card_is_described_and_not_named(demo_bundle: Path, tmp_path: Path, program: Program) -> None:
    lines = ("Product Name : RTX 5080", "Serial Number : 1324920012345", "GPU UUID : GPU-4f1c9a3e")
    program("nvidia-smi", f'[ "$*" = -q ] && printf "%s\\n" {" ".join(f"{line!r}" for line in lines)}')
    found = machine.run(Place(demo_bundle, tmp_path))
    assert found["nvidia_smi"].splitlines() == [
        *("Product Name : RTX 5080", f"Serial Number : {LEFT_OUT}", f"GPU UUID : {LEFT_OUT}")
    ]
    assert "nvidia_smi_failed" not in found
    assert "1324920012345" not in json.dumps(found)


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        ("echo 'GPU UUID : GPU-1'; exec sleep 60", "no answer within 1 s"),
        ("echo 'GPU UUID : GPU-1'; exit 9", "it ended with 9"),
    ],
)
def test_what_nvidia_smi_does_costs_nothing_else(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program, body: str, failed: str
) -> None:
    monkeypatch.setattr(machine, "_PATIENCE", 1)
    program("nvidia-smi", body)
    found = machine.run(Place(demo_bundle, tmp_path))
    assert found["nvidia_smi_failed"] == failed
    assert found["nvidia_smi"] == f"GPU UUID : {LEFT_OUT}\n"
    assert found["packages"]["numpy"]
    assert {budget["name"] for budget in found["manifest"]["budgets"]} == {"large", "medium", "small"}
