"""What a consumer does without: every package of the compiler, and what its own way of computing does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXPORTERS = ("torch", "onnx_ir", "onnxscript", "transformers", "safetensors", "rich", "elastic_export")

REFUSING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refuse())
bundle, = sys.argv[1:]
{program}
"""

GENERATE = """
from elastic_runtime import Bundle
from elastic_runtime.generation import Settings, generate
from elastic_runtime.opening import Opener
from elastic_runtime.session_request import Request

request = Request(budget="small", backend="onnxruntime", context=64)
with Opener(Bundle.open(bundle), request, say=print).open() as session:
    ids = [piece.id for piece in generate(session, [[72, 101, 108]], Settings(max_new=4))]
assert len(ids) == 4, ids
print("generated", *ids)
"""

CHOOSE = """
from elastic_runtime import Bundle
from elastic_runtime.format.weights import iter_weights
import elastic_runtime.tensorrt.open_tensorrt, elastic_runtime.tensorrt.backend_tensorrt, elastic_runtime.session

opened = Bundle.open(bundle, check="digests")
chosen = opened.choose(vram=12 << 30, context=2048).chosen
recipe = opened.recipe(opened.budget("small"))
cut = sum(array.nbytes for _, array in iter_weights(recipe, opened.path / "small"))
assert cut == opened.budget("small").weight_bytes, cut
print("chosen", chosen)
"""


def _run(program: str, bundle: Path, refused: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    code = REFUSING.format(refused=refused, program=program)
    return subprocess.run([sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=False)


def test_a_bundle_generates_where_the_exporters_packages_cannot_be_imported(demo_bundle: Path) -> None:
    done = _run(GENERATE, demo_bundle, EXPORTERS)
    assert done.returncode == 0, done.stderr
    assert "generated" in done.stdout


def test_an_engines_consumer_needs_neither_onnx_nor_onnxruntime(demo_bundle: Path) -> None:
    done = _run(CHOOSE, demo_bundle, (*EXPORTERS, "onnx", "onnxruntime", "tokenizers", "jinja2", "click"))
    assert done.returncode == 0, done.stderr
    assert "chosen" in done.stdout


@pytest.mark.parametrize(
    ("package", "advice"), [("onnx", "Pip install onnx."), ("onnxruntime", "Pip install onnxruntime (")]
)
def test_the_cpu_says_which_package_it_lacks(demo_bundle: Path, package: str, advice: str) -> None:
    """That one alone: a second onnxruntime, beside the GPU's, would overwrite its files."""
    done = _run(GENERATE, demo_bundle, (*EXPORTERS, package))
    assert done.returncode != 0
    assert f"{package} is not installed here" in done.stderr
    assert advice in done.stderr
