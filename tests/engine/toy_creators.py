"""Creators for the tests, imported in the build process: a real little plugin, and ways for a process to die."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from elastic_export.ops.mamba2_mixer.creator import declaration
from elastic_export.ops.plugin_creator import Declaration, Symbols, create_creator


def twice(trt: Any) -> Any:
    """Creator of `Twice`: one output like the input."""

    class Twice(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime):
        def __init__(self) -> None:
            trt.IPluginV3.__init__(self)
            trt.IPluginV3OneCore.__init__(self)
            trt.IPluginV3OneBuildV2.__init__(self)
            trt.IPluginV3OneRuntime.__init__(self)
            self.plugin_name, self.plugin_version, self.plugin_namespace = "Twice", "1", ""
            self.num_outputs = 1

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def get_output_data_types(self, types: list[Any]) -> list[Any]:
            return types[:1]

        def get_output_shapes(self, inputs: list[Any], shape_inputs: list[Any], builder: Any) -> list[Any]:
            return inputs[:1]

        def supports_format_combination(self, pos: int, described: list[Any], num_inputs: int) -> bool:
            return bool(described[pos].desc.format == trt.TensorFormat.LINEAR)

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def get_aliased_input(self, output: int) -> int:
            return -1

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            pass

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            pass

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def clone(self) -> Any:
            return Twice()

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return 0

    class TwiceCreator(trt.IPluginCreatorV3One):
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version, self.plugin_namespace = "Twice", "1", ""
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return Twice()

    return TwiceCreator()


def two_buffers(trt: Any) -> Any:
    """The creator of our mixer, of a plugin that shares no buffer."""
    mixer = declaration()
    for output in mixer.contract["outputs"]:
        output.pop("alias", None)
    return create_creator(trt, mixer)


def abort(trt: Any) -> Any:
    print("about to abort", flush=True)
    os.abort()


def killed(trt: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(trt: Any) -> Any:
    print("still thinking", flush=True)
    time.sleep(600)


def raising(trt: Any) -> Any:
    raise RuntimeError("creator exploded")


def mixer_without_an_answer(trt: Any) -> Any:
    """Creator of `Mamba2Mixer` that does not know how much scratch memory it needs."""
    known = declaration()

    def unknown(symbols: Symbols) -> int:
        return symbols["rows"]

    return create_creator(trt, Declaration(known.contract, unknown, known.check))
