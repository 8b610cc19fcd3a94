"""What a session is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from elastic_runtime.errors import InputError
from elastic_runtime.format.records import show
from elastic_runtime.ort.open_onnx import WeightForm

BackendName = Literal["auto", "onnxruntime", "tensorrt-rtx"]
DeviceWish = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True)
class Request:
    """What to open. None leaves a choice: the memory that is free, the largest context that fits it.

    `budget`: a name, in whichever form of it fits where the bundle has several; one form, such as `6b.int8`; or `auto`.

    `device`: an engine is always the card's. onnxruntime takes the card on `gpu`, or fails; on `auto` it takes it where
    it can and a float32 twin fits, else the CPU.

    `plugin_folder` holds plugin libraries and `trust_engine` vouches for those that engines carry: both let code run
    that neither the installed elastic-plugins nor anybody else has checked.

    Raises:
        InputError: a name that is none of these, or a size that is no whole number in its bounds. What depends on the
            bundle (its budgets, its contexts) is said when it is opened.
    """

    budget: str = "auto"
    backend: BackendName = "auto"
    device: DeviceWish = "auto"
    vram: int | None = None
    context: int | None = None
    batch: int = 1
    weights: WeightForm = "auto"
    threads: int = 0
    plugin_folder: Path | None = None
    trust_engine: bool = False
    cache_folder: Path | None = None

    def __post_init__(self) -> None:
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                todo = "name one of them"
                raise InputError(name, expected=", ".join(known), found=show(getattr(self, name)), todo=todo)
        for name, (least, most) in SIZES.items():
            value = getattr(self, name)
            if value is None and name in ("vram", "context"):
                continue
            if type(value) is not int:
                raise InputError(name, expected="a whole number", found=show(value), todo="give it as an int")
            if value < least:
                raise InputError(name, expected=f"at least {least}", found=str(value), todo="name a larger one")
            if value > most:
                raise InputError(name, expected=f"at most {most}", found="more", todo="name a smaller one")
        if not isinstance(self.budget, str):
            raise InputError("budget", expected="a name", found=show(self.budget), todo="give it as a str")
        if type(self.trust_engine) is not bool:  # "no" is true, and lets code run
            found = show(self.trust_engine)
            raise InputError("trust_engine", expected="True or False", found=found, todo="give it as a bool")
        for name in ("plugin_folder", "cache_folder"):
            if (folder := getattr(self, name)) is not None:
                object.__setattr__(self, name, _folder(name, folder))


def _folder(name: str, value: object) -> Path:
    """A path, or the text of one."""
    if isinstance(value, str | Path) and value != "":
        return Path(value)
    raise InputError(name, expected="a folder", found=show(value) or "nothing", todo="give its path")


_NAMES = {"backend": get_args(BackendName), "device": get_args(DeviceWish), "weights": get_args(WeightForm)}
#: Least and most. onnxruntime starts every thread that it is asked for, and at 100,000 of them never ends.
SIZES = {"vram": (0, 1 << 60), "context": (1, (1 << 53) - 1), "batch": (1, 1 << 31), "threads": (0, 1024)}
