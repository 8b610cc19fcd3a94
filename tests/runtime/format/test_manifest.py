from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_runtime.errors import ElasticError, InputError
from elastic_runtime.format.manifest import Manifest, Plugin, ordered
from elastic_runtime.format.manifest_reader import DamageError, parse_manifest, read_manifest
from elastic_runtime.format.seal import is_sealed, seal

Reseal = Callable[[str], bytes]


def edited(manifest: Manifest, reseal: Reseal, *path: str | int, value: object) -> bytes:
    """The sealed text of the manifest with one value replaced (or added)."""
    data = place = json.loads(manifest.to_json())
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return reseal(json.dumps(data))


def test_there_and_back(manifest: Manifest) -> None:
    text = manifest.to_json()
    assert parse_manifest(text.encode()) == ordered(manifest)
    assert parse_manifest(text.encode()).to_json() == text


def test_order_without_meaning_does_not_show(manifest: Manifest) -> None:
    shuffled = replace(
        manifest,
        files=manifest.files[::-1],
        budgets=tuple(replace(b, engines=b.engines[::-1]) for b in manifest.budgets[::-1]),
        options=dict(reversed(manifest.options.items())),
        versions=dict(reversed(manifest.versions.items())),
    )
    assert shuffled.to_json() == manifest.to_json()
    assert [b["name"] for b in json.loads(manifest.to_json())["budgets"]] == ["12b", "9b", "4b"]


def test_what_a_consumer_finds(manifest: Manifest) -> None:
    data = json.loads(manifest.to_json())
    budget = data["budgets"][0]
    engine = budget["engines"][0]
    assert data["schema"] == "elastic-bundle/1"
    assert (budget["parameters"], budget["layers"]) == (12_310_001_152, 62)
    assert (budget["state_bytes"], budget["kv_bytes_per_token"]) == (148_865_024, 24_576)
    assert engine["fits"]["total"] == 24_620_002_304 + 4 * (148_865_024 + 24_576 * 4096) + 207_000_000 + 644_245_094
    assert engine["fits"]["enough"] is True
    assert engine["inputs"][3] == {"name": "conv_state.0", "dtype": "bfloat16", "shape": ["B", 3, 12288]}
    assert engine["outputs"][2] == {
        "name": "ssm_state_out.0",
        "dtype": "float32",
        "shape": ["B", 128, 80, 128],
        "input": "ssm_state.0",
        "alias": "must_not",
    }
    assert any("A row with length 0 keeps" in rule for rule in data["rules"])


BUDGET: tuple[str | int, ...] = ("budgets", 0)
ENGINE: tuple[str | int, ...] = (*BUDGET, "engines", 0)
ATTACKS: list[tuple[tuple[str | int, ...], Any, str]] = [
    (
        ("schema",),
        "elastic-bundle/2",
        "schema: expected 'elastic-bundle/1', found elastic-bundle/2. Use the elastic_run",
    ),
    (("schema",), None, "schema: expected 'elastic-bundle/1', found None"),
    (("demo",), 0, "demo: expected true or false, found 0"),
    (("news",), 1, "'news' as well"),
    (("weight_mode",), "borrowed", "expected 'shared' or 'sliced' or 'embedded'"),
    (("files", 0, "path"), "/etc/passwd", "relative path inside the bundle"),
    (("files", 0, "path"), "../a", "relative path inside the bundle"),
    (("files", 0, "path"), "a\\b", "relative path inside the bundle"),
    (("files", 0, "path"), "12b/rtx5090.16384.engine", "every name once"),
    (("files", 0, "size"), -5, "an integer from 0"),
    (("files", 0, "size"), 10**30, "integer"),
    (("files", 0, "sha256"), "A" * 64, "a sha256 of 64 hex digits"),
    (("external_weights",), [{"path": "../a", "size": 1, "sha256": "0" * 64}], "relative path"),
    (("budgets",), [], "at least one"),
    (("budgets", 1, "name"), "12b", "every name once, found 12b twice"),
    ((*BUDGET, "model"), "12b/other.onnx", "files that the manifest lists, found 12b/other.onnx"),
    ((*BUDGET, "layers"), 61, "of one length"),
    ((*BUDGET, "weight_bytes"), 2.5, "an integer from 0"),
    ((*BUDGET, "widths", "hidden_size"), True, "an integer from 0"),
    ((*BUDGET, "states", 1, "name"), "conv_state.0", "every name once"),
    ((*ENGINE, "file"), "manifest.json", "files that the manifest lists"),
    ((*ENGINE, "max_context"), 0, "max_context: expected 1 to"),
    ((*ENGINE, "max_batch"), 2**50, "max_batch: expected 1 to"),
    ((*ENGINE, "max_tokens"), 5000, "max_tokens up to max_context, found 5000 and 4096"),
    ((*ENGINE, "max_context"), 8192, "rtx5090 at 8192, native, twice"),
    ((*ENGINE, "ops"), "plugin", "a library if and only if ops is plugin"),
    ((*ENGINE, "outputs", 1, "input"), "nothing", "an input with its alias rule, found nothing"),
    ((*ENGINE, "outputs", 1, "alias"), None, "an input with its alias rule"),
    ((*ENGINE, "outputs", 1, "alias"), "may", "expected 'must' or 'must_not'"),
    ((*ENGINE, "inputs", 0, "shape"), [-1], "one of the forms"),
    ((*ENGINE, "status", "state"), "fine", "expected 'built' or 'verified'"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), ATTACKS, ids=[f"{p[-1]}-{i}" for i, (p, *_) in enumerate(ATTACKS)]
)
def test_attacks(manifest: Manifest, reseal: Reseal, path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_manifest(edited(manifest, reseal, *path, value=value), "out/manifest.json")
    assert error.value.subject.startswith("out/manifest.json")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", DamageError),
        (b"\xff" * 100, DamageError),
        (b"{}", DamageError),
        (b" " * (17 << 20), InputError),
    ],
)
def test_files_that_are_no_manifest(data: bytes, kind: type[ElasticError]) -> None:
    with pytest.raises(kind):
        parse_manifest(data)


def test_sealed_text_that_is_no_manifest(reseal: Reseal) -> None:
    blank = '"seal": "' + "0" * 64 + '"'
    for text in (
        f"{{{blank}",
        f"[{{{blank}}}]",
        f'{{{blank}, "a": 1, "a": 2}}',
        f"{{{blank}, " + '"a": ' + "[" * 100_000,
    ):
        with pytest.raises(InputError, match=r"manifest\.json"):
            parse_manifest(reseal(text))


def test_a_plugin_needs_ops_plugin(manifest: Manifest) -> None:
    engine = replace(manifest.budgets[0].engines[0], plugin=Plugin("lib.so", "x"))
    budget = replace(manifest.budgets[0], engines=(engine,))
    with pytest.raises(InputError, match="if and only if"):
        parse_manifest(replace(manifest, budgets=(budget,)).to_json().encode())


@pytest.mark.parametrize(
    "library", ["/abs/evil.so", "../evil.so", "4b/evil.so", "..", ".", "", "a\\evil.dll", "a\nb.so"]
)
def test_a_library_is_named_without_a_path(manifest: Manifest, reseal: Reseal, library: str) -> None:
    """It is loaded as code: it lies where the consumer looks for it, and nowhere else."""
    budgets = json.loads(manifest.to_json())["budgets"]
    engine = budgets[0]["engines"][0]
    engine |= {"ops": "plugin", "plugin": {"library": library, "abi": "tensorrt-rtx-1.7"}}
    with pytest.raises(InputError, match="plugin: expected a plain file name"):
        parse_manifest(edited(manifest, reseal, "budgets", value=budgets))
    engine["plugin"]["library"] = "libelastic_plugins.so"
    parse_manifest(edited(manifest, reseal, "budgets", value=budgets))


@pytest.mark.parametrize("path", [("budgets", 0, "name"), ("budgets", 0, "engines", 0, "target")])
@pytest.mark.parametrize("name", ["big\n  6b: chosen", "\x1b[2J", "a\x9b"])
def test_names_with_control_characters_are_refused(
    manifest: Manifest, reseal: Reseal, path: tuple[str | int, ...], name: str
) -> None:
    with pytest.raises(InputError, match=rf"{path[-1]}: expected a name without control characters"):
        parse_manifest(edited(manifest, reseal, *path, value=name))


def test_every_flipped_bit_is_found(manifest: Manifest) -> None:
    data = replace(manifest, budgets=manifest.budgets[:1], files=manifest.files).to_json().encode()
    assert is_sealed(data)
    generator = random.Random(1)
    seal_at = data.index(b'"seal"')
    places = [*range(seal_at, seal_at + 80), *(generator.randrange(len(data)) for _ in range(400))]
    for place in places:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            assert not is_sealed(bytes(flipped)), (place, bit)


def test_a_second_seal_does_not_help(manifest: Manifest) -> None:
    data = manifest.to_json()
    again = data.replace('"producer": "elastic-export 0.1.0"', '"producer": "x", "seal": "' + "a" * 64 + '"')
    assert not is_sealed(again.encode())
    blank, other = '"seal": "' + "0" * 64 + '"', '"seal": "' + "a" * 64 + '"'
    assert is_sealed(seal(f"{{{blank}}}").encode())
    assert not is_sealed(seal(f"{{{blank}, {other}}}").encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_any_edit_is_read_or_an_input_error(manifest: Manifest, reseal: Reseal, data: st.DataObject) -> None:
    value = place = json.loads(manifest.to_json())
    while True:  # walk to a random value and put another there
        key = (
            data.draw(st.sampled_from(sorted(place)))
            if isinstance(place, dict)
            else data.draw(st.integers(0, len(place) - 1))
        )
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 3)) == 0:
            break
        place = inner
    scalar = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
    place[key] = data.draw(
        scalar | st.lists(scalar, max_size=3) | st.dictionaries(st.text(max_size=3), scalar, max_size=2)
    )
    try:
        parse_manifest(reseal(json.dumps(value)))
    except ElasticError as error:
        assert str(error).startswith("manifest.json")  # noqa: PT017  # either outcome is right


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("empty", "no manifest.json in it"),
        ("strange", "no manifest.json in it"),
        ("file", "a file"),
        ("absent", "no such folder"),
    ],
)
def test_what_is_no_bundle_says_what_it_is(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange" / "manifest.json").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / name)
    assert (
        str(caught.value)
        == f"{tmp_path / name}: expected a bundle, found {found}. Name the folder that elastic-export wrote."
    )
