"""The smallest build there is, to learn whether the builder works here. Run in the environment of a real build."""

from __future__ import annotations

import sys
import time
from typing import Any

from elastic_export.engine.flavour import flavour
from elastic_export.engine.isolation import address_randomization, restart_without_randomization

PROBE_TARGET = "SM120"


def main() -> int:
    """Print the seconds a tiny engine took and whether addresses were randomised (`on`, `off`); 1 if it failed."""
    restart_without_randomization()
    started = time.perf_counter()
    if not _builds():
        return 1
    print(f"{time.perf_counter() - started:.2f}", "on" if address_randomization() else "off")
    return 0


def _builds() -> bool:
    product = flavour("tensorrt_rtx")
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
