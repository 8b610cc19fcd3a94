"""The stand-in for the bindings against the real ones: it has nothing that they lack, and says of itself what they say.

What follows from it: the runtime, which runs on the stand-in in the other tests, uses no name that TensorRT-RTX lacks.
"""

from __future__ import annotations

import enum
import inspect
import re
from typing import Any

import pytest

from rtx_stand_in import load_stand_in

#: Classes by which the stand-in is told what to be; none of the bindings.
OWN = {"Living", "Tensor"}
CLASSES = [
    name
    for name, value in vars(load_stand_in()).items()
    if inspect.isclass(value) and value.__module__.startswith(load_stand_in().__name__) and name not in OWN
]


@pytest.fixture(scope="module")
def real() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


def _parameters(documented: str) -> list[list[str]]:
    """Names of the parameters of every overload that a docstring of pybind11 lists, `self` left out."""
    found = []
    for line in documented.splitlines():
        if match := re.match(r"\s*(?:\d+\. )?\w+\((self: [^)]*)\) -> ", line):
            names = re.findall(r"(?:^|, )(\w+): ", match[1])
            found.append(names[1:])
    return found


def _public(owner: type) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if name[0] != "_"}


def test_the_stand_in_is_of_the_version_that_is_installed(real: Any) -> None:
    assert load_stand_in().__version__ == real.__version__


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_no_name_that_the_bindings_lack(real: Any, name: str) -> None:
    mine, theirs = getattr(load_stand_in(), name), getattr(real, name)
    if issubclass(mine, enum.Enum):
        values = {member.name: member.value for member in mine}
        assert values == {member: int(value) for member, value in theirs.__members__.items()}
        return
    for attribute, value in _public(mine).items():
        assert hasattr(theirs, attribute), f"{name}.{attribute}"
        if not inspect.isfunction(value):
            continue  # a property, or a value that stands for one
        wanted = list(inspect.signature(value).parameters)[1:]
        overloads = _parameters(getattr(theirs, attribute).__doc__ or "")
        if attribute != "log":  # for a subclass to write: it has no docstring
            assert any(wanted == given[: len(wanted)] for given in overloads), f"{name}.{attribute}: {overloads}"


def test_a_property_is_no_method_there_either(real: Any) -> None:
    stand_in = load_stand_in()
    for name in ("ICudaEngine", "IRuntimeConfig", "Runtime"):
        for attribute, value in _public(getattr(stand_in, name)).items():
            assert inspect.isfunction(value) != isinstance(
                inspect.getattr_static(getattr(real, name), attribute), property
            ), f"{name}.{attribute}"


def test_levels_of_the_log_compare_as_numbers(real: Any) -> None:
    severity = real.ILogger.Severity
    assert severity.ERROR <= severity.WARNING < severity.INFO
    assert {m.name: m.value for m in load_stand_in().ILogger.Severity} == {
        name: int(value) for name, value in severity.__members__.items()
    }
