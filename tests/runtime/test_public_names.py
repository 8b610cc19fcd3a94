"""What `import elastic_runtime` offers, each name imported when it is asked for."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import elastic_runtime


@pytest.mark.parametrize("name", elastic_runtime.__all__)
def test_every_name_is_the_one_of_its_module(name: str) -> None:
    value = getattr(elastic_runtime, name)
    home = inspect.getmodule(value)
    assert home is not None
    assert getattr(home, name) is value
    assert home.__name__.startswith("elastic_runtime.")


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'elastic_runtime' has no attribute 'Bundel'"):
        _ = elastic_runtime.Bundel


def test_errors_are_there_without_numpy() -> None:
    code = "import sys, elastic_runtime as e; from elastic_runtime import InputError; print('numpy' in sys.modules)"
    more = "; print('Bundle' in dir(e)); from elastic_runtime import *; print(WeightRecipe.__module__)"
    done = subprocess.run([sys.executable, "-c", code + more], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "elastic_runtime.format.weights"]


def test_no_module_has_the_name_of_what_the_package_offers() -> None:
    """Importing `elastic_runtime.open` would set the attribute `open` of the package to that module."""
    names = elastic_runtime.__all__
    assert [name for name in names if importlib.util.find_spec(f"elastic_runtime.{name}")] == []


def test_open_takes_an_opened_bundle_or_its_folder(demo_bundle: Path) -> None:
    request = elastic_runtime.Request(budget="small", backend="onnxruntime", device="cpu", context=64)
    for bundle in (elastic_runtime.Bundle.open(demo_bundle), demo_bundle, str(demo_bundle)):
        with elastic_runtime.open(bundle, request) as session:
            assert isinstance(session, elastic_runtime.Session)
            assert session.prefill([[72]]).shape == (1, 264)


def test_open_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(elastic_runtime.InputError, match="expected a bundle"):
        elastic_runtime.open(tmp_path)
