"""exporter/README.md, "How to add a thing", followed to the letter on a copy of the sources.

The page holds the whole change of each step as diffs. They are applied in its order; then one process exports and
verifies a small model that has everything which the steps add.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "exporter" / "README.md"
#: The most files that a step may touch, tests and kernels apart.
MOST_FILES = {"a pass": 3, "an op with a plugin": 6, "a layer kind": 6, "a target": 1}
LONGEST = 350  # lines of a file that a step touches

pytestmark = [
    pytest.mark.xdist_group("adding"),
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git, which applies the page's diffs"),
]


@dataclass(frozen=True)
class Step:
    """A section `## Add <thing> (<files> files)` of the page."""

    thing: str
    stated: int
    diffs: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        return re.findall(r"^\+\+\+ b/(\S+)$", "".join(self.diffs), re.MULTILINE)


def read_steps(page: str) -> list[Step]:
    heading = re.compile(r"^## Add ([^\n]+) \((\d+) files?\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    return [
        Step(thing, int(stated), tuple(re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)))
        for thing, stated, text in heading.findall(page)
    ]


STEPS = read_steps(PAGE.read_text(encoding="utf-8"))


def apply_step(step: Step, tree: Path) -> None:
    """Its diffs, each whole and without fuzz; fails with the step's name where one does not apply any more."""
    outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}  # a tree in a checkout would be taken for it
    for diff in step.diffs:
        run = subprocess.run(
            ["git", "apply", "-"], cwd=tree, env=outside, input=diff, capture_output=True, text=True, check=False
        )
        if run.returncode:
            pytest.fail(f'{PAGE.name}: the step "Add {step.thing}" is stale, mend its diff: {run.stderr.strip()}')


@dataclass(frozen=True)
class Walk:
    """What following the page came to."""

    tree: Path
    run: subprocess.CompletedProcess[str]
    bundle: Path

    def document(self, path: str) -> Any:
        return json.loads((self.bundle / path).read_text(encoding="utf-8"))

    @property
    def budget(self) -> Any:
        (budget,) = self.document("manifest.json")["budgets"]
        return budget


def copy_sources(tree: Path) -> Path:
    for folder in ("exporter/elastic_export", "engines/elastic_runtime", "plugins"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "build", "*.so"))
    return tree


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    place = tmp_path_factory.mktemp("adding")
    tree = copy_sources(place / "tree")
    for step in STEPS:
        apply_step(step, tree)
    paths = os.pathsep.join(str(tree / folder) for folder in ("exporter", "engines"))
    program = [sys.executable, str(ROOT / "tests" / "adding_run.py"), str(place)]
    run = subprocess.run(
        program, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False, timeout=240
    )
    return Walk(tree, run, place / "bundle")


def test_the_page_has_every_step() -> None:
    assert [step.thing for step in STEPS] == list(MOST_FILES)


def test_the_page_names_files_that_are_there() -> None:
    """In its prose; what the diffs add, and what a reader shall write, aside."""
    prose = re.sub(r"^```diff\n.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    added = {Path(name).name for step in STEPS for name in step.files} | {"test_share_constants.py"}
    named = set(re.findall(r"`((?:[\w.]+/)+[\w.]+\.\w+|(?:[\w.]+/)+)`", prose))
    assert len(named) > 15
    roots = (ROOT, ROOT / "exporter" / "elastic_export", ROOT / "engines", ROOT / "engines" / "elastic_runtime")
    assert {
        name
        for name in named
        if Path(name).name not in added and not any((root / name).exists() for root in roots)
    } == set()  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.thing)
def test_a_step_touches_few_files(step: Step) -> None:
    assert len(set(step.files)) == len(step.files) == step.stated
    assert step.stated <= MOST_FILES[step.thing]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.thing)
def test_a_step_needs_no_other(step: Step, tmp_path: Path) -> None:
    tree = copy_sources(tmp_path / "tree")
    apply_step(step, tree)
    lines = {name: len((tree / name).read_text(encoding="utf-8").splitlines()) for name in step.files}
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_a_step_that_applies_no_more_is_named(tmp_path: Path) -> None:
    tree = copy_sources(tmp_path / "tree")
    order = tree / "exporter" / "elastic_export" / "passes" / "order.py"
    order.write_text(order.read_text(encoding="utf-8").replace("Narrow()", "NarrowAll()"), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match=r'"Add a pass" is stale, mend its diff: .*passes/order\.py'):
        apply_step(STEPS[0], tree)


def test_the_model_of_the_page_is_exported_and_verified(walk: Walk) -> None:
    assert walk.run.returncode == 0, walk.run.stderr[-4000:]
    assert f"sources: {walk.tree / 'exporter' / 'elastic_export'}\n" in walk.run.stdout
    assert "small/model.onnx: ok: " in walk.run.stdout
    assert walk.run.stdout.endswith("verified\n")


def test_the_pass_fires(walk: Walk) -> None:
    dumps = sorted((walk.bundle.with_name("bundle.debug") / "small").glob("*.txt"))
    (place,) = [index for index, dump in enumerate(dumps) if dump.stem.endswith("-ShareConstants")]
    assert dumps[place].read_text(encoding="utf-8") != dumps[place - 1].read_text(encoding="utf-8")


def test_the_op_is_a_plugin_of_the_engine(walk: Walk) -> None:
    (engine,) = walk.document("small/report.json")["engines"].values()
    assert engine["plugin_layers"] == {"Mamba2Mixer": 1, "CachedAttention": 1, "SquaredRelu": 1}


def test_the_layer_kind_is_cut(walk: Walk) -> None:
    assert walk.budget["pattern"] == "M*G-"
    assert walk.budget["widths"]["gated_sizes"] == [24]  # of the parent's 40


def test_the_target_has_its_engine(walk: Walk) -> None:
    (engine,) = walk.budget["engines"]
    assert (engine["target"], engine["compute_capabilities"]) == ("rtx3080-12gb", ["8.6"])
    assert (walk.bundle / engine["file"]).stat().st_size > 0
