"""Where a default bundle is to land on the stand-in card, and what is to be said: tests/cpp/test_landing.py."""

from __future__ import annotations

from dataclasses import dataclass

from landing_bundle import PLUGIN


@dataclass(frozen=True)
class Case:
    """A place to land.

    Args:
        runs: the engine, `cpu`, or empty where nothing does.
        says: words of a warning, or of the error, in C++ and in Python.
        stand_in: facts of the card.
        plugins: the folder of libraries that is named.
        bundle: how its plugin engine comes by its library.
        trust, device: of the request.
        subject, exit: of the error.
    """

    runs: str
    says: tuple[str, ...] = ()
    stand_in: str = ""
    plugins: str = ""
    bundle: str = "beside"
    trust: bool = False
    device: str = "auto"
    subject: str = ""
    exit: int = 0
    sentences: int = 1  # about where it runs, where it does


PLUGINS, NATIVE, CPU = "b/p.engine", "b/n.engine", "cpu"
IN_PLACE = "warning: b/n.engine in place of b/p.engine: "
ON_CPU = "running on the CPU with onnxruntime, in float32 arithmetic"
NO_ENGINE = "; no engine runs here: b/p.engine: "
OLD_DRIVER = "expected a driver that runs CUDA 13"
FULL = "driver=12080 has_provider=1"
CASES = {
    "the library": Case(PLUGINS, plugins="fits"),
    "no library": Case(NATIVE, (IN_PLACE + "libelastic_plugins.so: expected ",)),
    "no library, the card by name": Case(NATIVE, (IN_PLACE,), device="gpu"),
    "a library of other headers": Case(
        NATIVE, (IN_PLACE, "other: expected libraries for rtx-1.7, found those for rtx-1.6"), plugins="other"
    ),
    "a library for another card": Case(
        NATIVE, (IN_PLACE, "expected a library for compute capability 12.0, found code for 90-real"), plugins="sm90"
    ),
    "a swapped library": Case("", ("as its libraries.json says, found ",), plugins="swapped", subject="/0.so", exit=1),
    "a folder without one": Case("", ("found no such file",), plugins="empty", subject="/empty", exit=2),
    "an old driver": Case(CPU, (ON_CPU, NO_ENGINE + OLD_DRIVER), "driver=12080", plugins="fits"),
    "an old driver, the card by name": Case(
        "", (OLD_DRIVER,), "driver=12080", plugins="fits", device="gpu", subject="onnxruntime on a card", exit=1,
    ),
    "another TensorRT": Case(CPU, (ON_CPU, NO_ENGINE + "expected tensorrt-rtx 1.7.1"), "version=8", plugins="fits"),
    "no driver": Case(CPU, ("no NVIDIA card here: " + ON_CPU,), "has_driver=0"),
    "a driver without a restart": Case(
        CPU, (ON_CPU, "; GPU memory: expected the NVIDIA driver to start, found a driver and a library of different"),
        "nvml_error=18",
    ),
    "the same, the card by name": Case(
        "", ("a driver and a library of different",), "nvml_error=18", device="gpu", subject="device gpu", exit=1
    ),
    "another class": Case(CPU, ("Fake RTX has compute capability 12.1, the engines are for 12.0, 8.9: ",), "minor=1"),
    "too little memory": Case(
        CPU, (ON_CPU, "; no engine runs here: bundle: expected a budget that fits, found none"), "free_bytes=629145600"
    ),
    "a card that fills up before the weights are there": Case(
        CPU, (ON_CPU, "on the card it expected room for 16 bytes more, found out of memory" + NO_ENGINE + OLD_DRIVER),
        FULL + " room=15", plugins="fits",
    ),
    "the same, the card by its name": Case(
        "", ("expected room for 16 bytes more, found out of memory" + NO_ENGINE + OLD_DRIVER,), FULL + " room=15",
        plugins="fits", device="gpu", subject="card 0", exit=1,
    ),
    "a card that fills up before the states are there": Case(
        CPU, (ON_CPU, "on the card it expected room for ", " more, found out of memory" + NO_ENGINE + OLD_DRIVER),
        FULL + " room=79", plugins="fits",
    ),
    "a card that fills up while engines load": Case(
        CPU, (ON_CPU, "on the card it expected room for ", "; no engine runs here: ", "found out of memory"),
        "has_provider=1 room=79", plugins="fits", sentences=2,
    ),
    "a card too full to start on": Case(
        CPU, (ON_CPU, "one whose CUDA libraries, driver or card do not answer", NO_ENGINE + OLD_DRIVER),
        FULL + " room=0", plugins="fits",
    ),
    "a library inside, known": Case(PLUGINS, bundle="carried", plugins="fits"),
    "a library inside, vouched for": Case(PLUGINS, bundle="carried", trust=True),
    "a library inside, unknown": Case(
        NATIVE, (IN_PLACE + "b/p.engine: expected a plugin library in it that is known here",), bundle="carried"
    ),
    "a library inside, swapped": Case(
        "", ("do not run it: get the bundle from where it was made",), bundle="swapped", trust=True, subject=PLUGINS,
        exit=1,
    ),
    "an engine that its header refuses": Case(
        NATIVE, (IN_PLACE + "b/p.engine: expected an engine that TensorRT-RTX can run here",),
        f"refused={PLUGIN.decode()}", plugins="fits",
    ),
}  # fmt: skip
