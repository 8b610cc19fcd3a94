"""The two distributions: each asks for what its code imports and for nothing else, and they fit each other."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import elastic_export
import elastic_runtime
from elastic_export.products import PRODUCTS

ROOT = Path(__file__).parents[1]
OURS = {"elastic_export", "elastic_runtime"}
#: What is imported under another name than it is installed, or by its name as text only.
INSTALLED_AS = {"google": "protobuf", "yaml": "pyyaml"}
PRELOADED = {"tbb"}


def _project(path: str) -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / path).read_text("utf-8"))["project"])


def _names(requirements: list[str]) -> set[str]:
    """Packages of requirements, spelled as Python imports them."""
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].replace("-", "_").lower() for line in requirements}


def _imported(*folders: str) -> set[str]:
    """Packages that the code imports, anywhere in it, apart from the standard library and its own modules."""
    found, own = set[str](), set[str]()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        own |= {path.stem, path.parent.name}
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    foreign = found - set(sys.stdlib_module_names) - OURS - (own if "tests" in folders else set())
    return {INSTALLED_AS.get(name, name) for name in foreign}


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    return _project("engines/pyproject.toml")


@pytest.fixture(scope="module")
def export() -> dict[str, Any]:
    return _project("pyproject.toml")


def test_the_runtime_asks_for_what_it_imports(runtime: dict[str, Any]) -> None:
    extras = {name: _names(lines) for name, lines in runtime["optional-dependencies"].items()}
    assert extras == {"cpu": {"onnxruntime"}, "gpu": {"onnxruntime_gpu"}, "tensorrt-rtx": {"tensorrt_rtx"}}
    assert _names(runtime["dependencies"]) == _imported("engines/elastic_runtime") - extras["cpu"]


def test_the_compiler_asks_for_what_it_imports(runtime: dict[str, Any], export: dict[str, Any]) -> None:
    """Onnxruntime comes with the runtime's extra: asked for here as well, it would stand beside onnxruntime-gpu."""
    asked, brought = _names(export["dependencies"]), _names(runtime["optional-dependencies"]["cpu"])
    assert asked == (_imported("exporter/elastic_export") - brought) | PRELOADED | {"elastic_runtime"}


#: Only on a card's machine, beside what is measured there; table.py does without the last.
ON_A_CARD = {"triton", "cupy", "matplotlib"}


def test_tests_import_what_their_extra_brings(runtime: dict[str, Any], export: dict[str, Any]) -> None:
    brought = _names(export["dependencies"]) | _names(export["optional-dependencies"]["test"])
    brought |= _names(runtime["dependencies"]) | {"onnxruntime"}
    assert _imported("tests", "plugins") - ON_A_CARD <= brought


def test_both_are_of_one_version(export: dict[str, Any]) -> None:
    pins = [line for line in export["dependencies"] if line.startswith("elastic-runtime")]
    assert [re.split(r"[=;]+", pin)[1] for pin in pins] == [elastic_runtime.__version__] * 2
    assert elastic_export.__version__ == elastic_runtime.__version__


def test_the_compilers_wheel_is_without_the_runtime_and_gets_one_onnxruntime(export: dict[str, Any]) -> None:
    """Two distributions that own the same files break each other when one is removed."""
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert hatch["targets"]["wheel"]["packages"] == ["exporter/elastic_export"]
    assert hatch["dev-mode-dirs"] == ["exporter"]
    everything = list(export["dependencies"])
    for lines in export["optional-dependencies"].values():
        everything += lines
    extras = {name for line in everything for name in re.findall(r"elastic-runtime\[([\w-]+)\]", line)}
    assert extras == {"cpu", "tensorrt-rtx"}
    assert not {name for name in _names(everything) if name.startswith("onnxruntime")}


def test_errors_advise_the_products_that_the_extras_bring(runtime: dict[str, Any], export: dict[str, Any]) -> None:
    extras = {**runtime["optional-dependencies"], **export["optional-dependencies"]}
    for product in PRODUCTS.values():
        assert [line.partition(";")[0] for line in extras[product.name]] == [product.requirement]
        assert product.install() == f"install it: pip install '{product.requirement}'"


@pytest.mark.parametrize("page", ["README.md", "engines/README.md"])
def test_the_pages_install_extras_that_exist_from_paths(
    page: str, runtime: dict[str, Any], export: dict[str, Any]
) -> None:
    """Neither name is on an index: whoever wrote `pip install elastic-runtime` would get a stranger's package."""
    text = (ROOT / page).read_text("utf-8")
    known = {"./engines": runtime["optional-dependencies"], ".": export["optional-dependencies"]}
    commands = re.findall(r"pip (?:install|download)\b.*", text)
    assert commands
    assert not [command for command in commands if re.search(r"\s'?elastic-(runtime|export)\b", command)]
    for folder, names in re.findall(r"[ ']((?:\./engines|\.))\[([\w,-]+)\]", text):
        assert set(names.split(",")) <= set(known[folder])


def test_git_ignores_what_the_first_command_of_the_page_writes(tmp_path: Path) -> None:
    """The folder and the files beside it: a checkout in which somebody exported the demo is not dirty."""
    written = [f"engines/elastic-demo{end}" for end in ("/manifest.json", ".run.json", ".failed.json", ".debug/a.txt")]
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    command = ["git", "-C", str(tmp_path), "check-ignore", *written]
    assert subprocess.run(command, check=False, capture_output=True, text=True).stdout.split() == written


def test_the_plugin_libraries_are_of_that_version_too() -> None:
    project = _project("plugins/pyproject.toml")
    found = re.search(
        r"project\(elastic_plugins VERSION ([0-9.]+)", (ROOT / "plugins/CMakeLists.txt").read_text("utf-8")
    )
    assert found is not None
    assert found[1] == elastic_runtime.__version__
    assert "dependencies" not in project
