"""The smallest build there is, to learn whether the builder works here. Run in the environment of a real build."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from elastic_export.engine.build_folder import PROCESSOR_FILE
from elastic_export.engine.flavour import flavour
from elastic_export.engine.isolation import left_to_chance
from elastic_export.engine.rtx import is_preloaded
from elastic_export.products import TENSORRT_RTX

PRODUCT = TENSORRT_RTX.name
PROBE_TARGET = "SM120"


def main() -> int:
    """Print the seconds a tiny engine took and what the process was granted, as JSON; 1 if it failed."""
    processor = Path(PROCESSOR_FILE).read_text()
    chances = left_to_chance(int(processor) if processor else None)
    started = time.perf_counter()
    if not _builds():
        return 1
    found = {
        "seconds": time.perf_counter() - started,
        "chances": chances,
        "allocator": is_preloaded(),
    }
    print(json.dumps(found))
    return 0


def _builds() -> bool:
    product = flavour(PRODUCT)
    trt: Any = product.module()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.DataType.BF16, (8, 8))
    network.mark_output(network.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0))
    config = builder.create_builder_config()
    product.set_target(trt, config, [PROBE_TARGET])
    return builder.build_serialized_network(network, config) is not None


if __name__ == "__main__":
    sys.exit(main())
