"""The consumer's page is true: its manifest has the schema's fields, its programs run and compile."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.ops.plugins import plugin_of
from elastic_export.products import TENSORRT_RTX
from elastic_runtime import errors, sampling
from elastic_runtime.format import manifest_reader, sketch
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.interface import ALIAS_RULES, token_ports
from elastic_runtime.format.manifest import SCHEMA, Manifest, Plugin
from elastic_runtime.format.records import decode, encode
from elastic_runtime.format.safetensors import TensorFile
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from layering import ROOMS

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


def test_the_worked_slice_is_where_the_page_says(demo_bundle: Path) -> None:
    at = re.search(r"element (\d+) of the result.*?row (\d+) of the parent.*?= (\d+), two bytes", PAGE, re.DOTALL)
    assert at
    element, row, byte = map(int, at.groups())
    recipe = WeightRecipe.read(demo_bundle / "small" / "weights.json")
    name = "backbone.layers.3.mixer.q_proj.weight"
    (item,) = [item for item in recipe.inputs if item.name == name]
    [part] = item.parts
    assert byte == part.offset + row * part.parent_shape[1] * 2
    cut = dict(iter_weights(recipe, demo_bundle / "small"))[name]
    with (demo_bundle / "small" / part.file).open("rb") as shard:
        shard.seek(byte)
        run = shard.read(224)
    assert cut.tobytes()[2 * element : 2 * element + 224] == run


def test_the_plugin_example_is_what_the_exporter_writes() -> None:
    text = re.search(r'\{"library": .*?\}\}', PAGE, re.DOTALL)
    assert text
    shown = decode(Plugin, json.loads(text[0]), "README.md")
    assert shown == plugin_of("plugin", TENSORRT_RTX, "1.7.1.116", shown.carried)
    assert shown.carried is not None
    assert replace(shown, carried=None) == plugin_of("plugin", TENSORRT_RTX, "1.7.1.116")


def test_the_golden_table_is_the_demos_file(demo_bundle: Path) -> None:
    path = demo_bundle / "small" / "golden.safetensors"
    section = PAGE[PAGE.index("## golden.safetensors") : PAGE.index("## The interface")]
    rows = re.findall(r"^\| `([\w.<>' ]+)` \| (int64|float32|float64) \[(.*?)\] \|", section, re.MULTILINE)
    table = {name: (kind, axes.split(", ")) for name, kind, axes in rows}
    names = {"i64": "int64", "fp32": "float32", "fp64": "float64"}
    golden = read_golden(path)
    sizes = {"C": golden.calls, "B": len(golden.ids), "total": golden.ids.shape[1], "V": golden.logits.shape[2]}
    for name, entry in TensorFile(path).entries.items():
        kind, axes = table["state.<input's name>" if name.startswith("state.") else name]
        assert kind == names[entry.dtype], name
        assert tuple(sizes[axis] if axis in sizes else int(axis) for axis in axes) == entry.shape, name


def test_the_formulas_are_those_of_the_code() -> None:
    page = " ".join(PAGE.split())
    assert f"0x{sketch.SEED:X}" in PAGE
    for text, module in (("1. weight", sampling), ("z = (z ^ (z >> 30))", sketch)):
        doc = module.__doc__ or ""
        for line in doc[doc.index(text) :].split("\n\n")[0].splitlines():
            formula = re.split(r" {2,}\(|, as sketch|, `| in doubles| \(ln 2", line.strip())[0]
            if not formula.startswith(("word", "sum[")):
                assert " ".join(formula.split()) in page, formula


def test_the_exit_codes_are_those_of_the_classes() -> None:
    rows = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)}
    classes = (errors.InputError, errors.BuildError, manifest_reader.DamageError, errors.UnavailableError)
    assert rows == {kind.__name__: kind.exit_code for kind in classes}
    header = (ENGINES / "cpp/include/elastic_runtime/error.h").read_text("utf-8")
    for name in rows:
        assert f"class {name} " in header


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
    assert re.findall(r"^(?:from|import) .*", program, re.MULTILINE) == ["import elastic_runtime as elastic"]
    exec(compile(program, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "large: weights" in said
    assert re.search(r"next: \d+\n$", said)


def test_the_compilers_page_has_every_room_of_the_runtime_in_the_order_that_the_test_of_layers_holds() -> None:
    page = (ENGINES.parent / "exporter" / "README.md").read_text("utf-8")
    table = page.split("\n## The rooms of the runtime\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    assert [*re.findall(r"`(\w+)/?`", " ".join(rows)), "__init__"] == ROOMS["elastic_runtime"]
