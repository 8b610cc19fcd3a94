"""The consumer's page is true: its manifest has the schema's fields, its programs run and compile, its names exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from elastic_runtime.interface import ALIAS_RULES, token_ports
from elastic_runtime.manifest import SCHEMA, Manifest
from elastic_runtime.records import decode, encode
from elastic_runtime.weights import WeightRecipe

ENGINES = Path(__file__).parents[2] / "engines"
PAGE = (ENGINES / "README.md").read_text("utf-8")


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_manifest_example_has_every_field_of_the_schema_and_no_other(demo_bundle: Path) -> None:
    example = json.loads(_block("json"))
    assert example.pop("schema") == SCHEMA
    assert len(example.pop("seal")) == 64
    manifest = decode(Manifest, example, "README.md")  # strict: every field, no other, every type
    assert encode(manifest) == example
    (budget,) = manifest.budgets
    real = json.loads((demo_bundle / "manifest.json").read_text("utf-8"))
    same = next(b for b in real["budgets"] if b["name"] == budget.name)
    shown = example["budgets"][0]
    for name in ("parameters", "pattern", "kept_layers", "widths", "weight_bytes", "state_bytes", "kv_bytes_per_token"):
        assert shown[name] == same[name]
    for port in shown["engines"][0]["inputs"]:
        assert port in same["engines"][0]["inputs"]
    for port in shown["engines"][0]["outputs"]:
        assert port in same["engines"][0]["outputs"]


def test_the_weights_example_is_the_demos(demo_bundle: Path) -> None:
    text = re.search(r'\{"schema": "elastic-weights/1".*?\}\}\}', PAGE, re.DOTALL)
    assert text
    (shown,) = WeightRecipe.from_json(json.loads(text[0]) | {"schema": "elastic-weights/1"}).inputs
    real = {item.name: item for item in WeightRecipe.read(demo_bundle / "small" / "weights.json").inputs}
    assert shown == real[shown.name]


def test_the_interface_tables_name_every_port_and_rule() -> None:
    for port in token_ports():
        assert f"| `{port.name}` | int64 [{', '.join(map(str, port.shape))}] |" in PAGE
    for kind, rules in ALIAS_RULES.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{kind}_out." in line]
        native, plugin = (cell.strip() for cell in row.split("|")[3:5])
        assert ("input's buffer" in native) == (rules["native"] == "must")
        assert ("input's buffer" in plugin) == (rules["plugin"] == "must")


def test_the_python_program_runs(demo_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = _block("python").replace('"BUNDLE"', repr(str(demo_bundle)))
    assert len(program.splitlines()) <= 20
    exec(compile(program, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "large: weights" in said
    assert re.search(r"next: \d+\n$", said)


def test_every_file_and_option_that_the_page_names_exists() -> None:
    for target in re.findall(r"\]\(([\w./]+)\)", PAGE):
        assert (ENGINES / target).exists(), target
    from elastic_runtime.run import command

    options = {option for parameter in command.params for option in parameter.opts}
    for line in PAGE.splitlines():
        if "elastic-run" in line:
            for option in re.findall(r"--[a-z-]+", line):
                assert option in options, line
