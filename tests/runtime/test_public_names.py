"""What `import elastic_runtime` offers, each name imported when it is asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys

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
