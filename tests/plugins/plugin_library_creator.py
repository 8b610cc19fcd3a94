"""A creator factory that takes the plugin from libelastic_plugins.so, imported in the build process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elastic_export.engine import checks
from elastic_export.ops.mamba2_mixer import creator as mixer_creator
from elastic_export.ops.plugin_creator import shared_input

#: Beside this module's copy in the test's folder: the environment of a build process carries no word of ours.
PATH_FILE = Path(__file__).parent / "library_path"


def create(trt: Any) -> Any:
    """Loads the library into the registry; what is returned is a stand-in under a name nobody asks for."""
    registry = trt.get_plugin_registry()
    registry.load_library(PATH_FILE.read_text())
    names = [creator.name for creator in registry.all_creators]
    assert "Mamba2Mixer" in names, names
    # TensorRT's bindings do not ask a plugin written in C++ which buffers it shares: the contract answers for it.
    checks.aliased_input = lambda declaration, output: shared_input(stand_in.declaration.contract, output)
    stand_in = mixer_creator.create(trt)
    stand_in.name = "TakenFromTheLibrary"
    return stand_in
