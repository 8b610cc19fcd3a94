"""Stage `engine`: what TensorRT says of an engine before it runs."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.driver.cuda import CudaDevice
from elastic_runtime.driver.free_memory import card
from elastic_runtime.tensorrt.open_tensorrt import read_checked
from elastic_runtime.tensorrt.plugin_library import plugin_source
from elastic_runtime.tensorrt.preflight import load_tensorrt
from elastic_runtime.tensorrt.trt_engine import TrtEngine


def run(place: Place) -> Found:
    """Its tensors, where they live and what they share; scratch."""
    bundle, _, entry = place.opened()
    said = list[str]()
    source = plugin_source(entry, card().compute_capability, given=place.plugins, trusted=place.trust_engine)
    data = read_checked(bundle, entry)
    plugins: Any = {"plugin": source.library, "host_code": source.carried}
    with closing(CudaDevice()) as opened:
        read = TrtEngine(load_tensorrt(), entry, data, opened, **plugins, cache=None, say=said.append)
        try:
            return {"facts": read.facts(), "said": said}
        finally:
            read.close()
