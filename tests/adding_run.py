"""The program of tests/test_adding.py, run on a copy of the sources to which exporter/README.md has added its things.

    python adding_run.py FOLDER

Writes a small random checkpoint to FOLDER/checkpoint, exports it to FOLDER/bundle and verifies the bundle.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

import elastic_export
from elastic_export.checkpoint.synthetic import random_weights, write_checkpoint
from elastic_export.cli import main
from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture

ARCH = Architecture(
    pattern="M*G-",
    vocab_size=61,
    hidden_size=32,
    ffn_sizes=(48,),
    mamba_heads=(4,),
    mamba_head_dim=8,
    ssm_groups=2,
    ssm_state=8,
    conv_kernel=4,
    attention_heads=4,
    kv_heads=2,
    attention_head_dim=16,
    epsilon=1e-5,
    time_step_limit=(0.0, math.inf),
    gated_sizes=(40,),  # the page adds it
)
BUDGETS = {"small": {"hidden_size": 24, "intermediate_size": 32, "gated_intermediate_size": 24}}


def write(folder: Path) -> Path:
    """The checkpoint."""
    narrow = DTYPES["bf16"].numpy
    weights = random_weights(ARCH, np.random.default_rng(3))
    write_checkpoint(folder, ARCH, {name: array.astype(narrow) for name, array in weights.items()}, shards=1)
    (folder / "elastic_config.json").write_text(json.dumps({"format": "elastic-budgets/1", "budgets": BUDGETS}))
    return folder


def command(*words: object) -> None:
    """One `elastic-export …`; ends the program unless it succeeds."""
    sys.argv = ["elastic-export", *map(str, words)]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(f"sources: {Path(elastic_export.__file__).parent}")
    checkpoint, bundle = write(place / "checkpoint"), place / "bundle"
    what = (
        "--checkpoint",
        checkpoint,
        "--budget",
        "all",
        "--target",
        "rtx3080-12gb",
        "--output",
        bundle,
        "--ops",
        "plugin",
    )
    command(*what, "--max-tokens", 16, "--max-context", 64, "--debug")
    command("verify", bundle)
