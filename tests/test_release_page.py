"""exporter/RELEASE.md: its workflow is run, job by job as GitHub would, for a small parent and with real engines."""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import elastic_runtime
from elastic_runtime.bundle import Bundle
from elastic_runtime.format import manifest, weights
from layering import PACKAGES
from small_export import write_small

PAGE = (Path(__file__).parents[1] / "exporter" / "RELEASE.md").read_text("utf-8")
README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@dataclass
class Runner:
    """What GitHub does with a workflow, as far as ours asks for it: an empty folder a job, artifacts between them."""

    workflow: Mapping[str, Any]
    env: Mapping[str, str]
    folder: Path
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def run(self) -> None:
        """All jobs, each after those that it needs."""
        waiting = dict(self.workflow["jobs"])
        while waiting:
            name = next(name for name, job in waiting.items() if job.get("needs") not in waiting)
            self._job(name, waiting.pop(name))

    def _job(self, name: str, job: Mapping[str, Any]) -> None:
        known = {f"needs.{other}.outputs.{key}": v for other, out in self.outputs.items() for key, v in out.items()}
        for number, row in enumerate(self._rows(job, known)):
            place = self.folder / f"{name}-{number}"
            place.mkdir()
            context = known | {f"matrix.{key}": value for key, value in row.items()}
            for step in job["steps"]:
                self._step(step, place, context)
        self.outputs[name] = {key: expand(text, context) for key, text in job.get("outputs", {}).items()}

    @staticmethod
    def _rows(job: Mapping[str, Any], known: Mapping[str, str]) -> list[dict[str, str]]:
        if "strategy" not in job:
            return [{}]
        inner = re.fullmatch(r"\$\{\{ fromJSON\((.*)\) \}\}", job["strategy"]["matrix"])
        assert inner
        rows: list[dict[str, str]] = json.loads(known[inner[1]])["include"]
        return rows

    def _step(self, step: Mapping[str, Any], place: Path, context: dict[str, str]) -> None:
        given = {key: expand(value, context) for key, value in step.get("with", {}).items()}
        action = step.get("uses", "").partition("@")[0]
        artifacts = self.folder / "artifacts"
        if action == "actions/upload-artifact":  # of one folder what is in it
            shutil.copytree(place / given["path"], artifacts / given["name"])
        elif action == "actions/download-artifact":  # of a pattern a folder each
            for found in artifacts.iterdir():
                if fnmatch.fnmatch(found.name, given["pattern"]):
                    shutil.copytree(found, place / given["path"] / found.name)
        elif "run" in step:
            script = place / "step.sh"
            script.write_text(expand(step["run"], context))
            self.commands.append(script.read_text())
            output = place / "output"
            output.touch()
            environment = self.env | self.workflow["env"] | {"CHECKPOINT": self.env["CHECKPOINT"]}
            environment["GITHUB_OUTPUT"] = str(output)
            done = subprocess.run(
                ["bash", "-e", str(script)], cwd=place, env=environment, capture_output=True, text=True, timeout=280,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{script.read_text()}\n{done.stdout}\n{done.stderr}"
            for line in output.read_text().splitlines():
                key, _, value = line.partition("=")
                context[f"steps.{step['id']}.outputs.{key}"] = value
        else:
            assert action == "actions/checkout", f"a step that this runner does not know: {step}"


def expand(text: str, context: Mapping[str, str]) -> str:
    """`${{ name }}` by what it names; KeyError where it names nothing."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: context[found[1]], text)


def blocks(page: str, language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The workflow, run for both budgets of a small parent and the page's targets."""
    folder, tools = tmp_path_factory.mktemp("runner"), tmp_path_factory.mktemp("tools")
    program = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m elastic_export "$@"\n'
    for name, text in {"elastic-export": program, "pip": "#!/bin/sh\n"}.items():  # what it would install is installed
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ELASTIC_")}
    env = kept | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [*map(str, PACKAGES.values()), *sys.path])),
        "CHECKPOINT": str(write_small(folder / "parent")),
    }
    [text] = blocks(PAGE, "yaml")
    runner = Runner(yaml.safe_load(text), env, folder)
    runner.run()
    return runner


@pytest.mark.xdist_group("release_page")
def test_the_workflow_of_the_page_makes_a_bundle(released: Runner) -> None:
    bundle = Bundle.open(released.folder / "artifacts" / "bundle", "digests", external=Path(released.env["CHECKPOINT"]))
    found = {(b.name, engine.target) for b in bundle.budgets for engine in b.engines}
    assert found == set(itertools.product(("full", "small"), ("rtx5080", "rtx4090")))
    assert all(budget.golden and budget.report for budget in bundle.budgets)
    assert sorted(path.name for path in (released.folder / "artifacts").iterdir()) == [
        "bundle",
        "part-full",
        "part-small",
    ]


@pytest.mark.xdist_group("release_page")
def test_every_command_of_the_page_was_run(released: Runner) -> None:
    [text] = blocks(PAGE, "yaml")
    asked = [step["run"] for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"] if "run" in step]
    fixed = {command for command in asked if "${{" not in command}
    assert fixed <= set(released.commands)
    assert len(released.commands) == len(asked) + 2  # the build's two lines, for one budget more
    installs = {command.strip() for command in released.commands if command.startswith("pip")}
    assert installs == {"pip install ./engines ."}, "the README's, from the same paths"
    assert "./engines ." in README


def test_the_runner_of_this_test_notices_a_workflow_that_fails(tmp_path: Path) -> None:
    def job(*steps: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return {"jobs": {"only": {"steps": list(steps), **more}}, "env": {}}

    def run(name: str, workflow: Mapping[str, Any]) -> None:
        (tmp_path / name).mkdir()
        Runner(workflow, {"CHECKPOINT": "", "PATH": os.environ["PATH"]}, tmp_path / name).run()

    run("good", job({"run": "true"}))
    faults: dict[str, tuple[Callable[..., Any], type[BaseException]]] = {
        "fails": (lambda: job({"run": "false\ntrue"}), AssertionError),
        "unknown action": (lambda: job({"uses": "actions/cache@v4"}), AssertionError),
        "unknown name": (lambda: job({"run": "echo ${{ matrix.name }}"}), KeyError),
        "no artifact": (
            lambda: job({"uses": "actions/upload-artifact@v4", "with": {"name": "x", "path": "none"}}),
            FileNotFoundError,
        ),
    }
    for name, (make, error) in faults.items():
        with pytest.raises(error):
            run(name, make())


def test_the_page_names_the_schemas_and_options_that_there_are() -> None:
    assert manifest.SCHEMA in PAGE
    assert weights.SCHEMA in PAGE
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= set(re.findall(r"--[a-z-]+", README)) | {
        "--by",
        "--weights-folder",
    }
    assert "`elastic_runtime.__all__`" in PAGE
    assert elastic_runtime.__all__
