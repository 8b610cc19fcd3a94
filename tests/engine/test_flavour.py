"""The adapters: what each product needs, said clearly where it is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elastic_export.engine import full, rtx
from elastic_export.engine.flavour import FLAVOURS, flavour
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.engine.rtx import COMPUTE_CAPABILITIES, LIBRARIES
from elastic_export.products import PRODUCTS
from elastic_runtime.bringup.plan import RTX
from elastic_runtime.errors import InputError


def test_the_full_tensorrt_is_refused_without_its_package(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "package_version", lambda name: None)
    with pytest.raises(InputError, match=r"full TensorRT .*, found no such package\. .* ./engines '\.\[tensorrt\]'"):
        build_engine(replace(request_for_small_model, flavour="tensorrt"))


def test_the_full_tensorrt_is_refused_without_a_gpu(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "package_version", lambda name: "11.4.0.106")
    monkeypatch.setattr(full, "gpu_compute_capabilities", lambda: ())
    with pytest.raises(InputError, match=r"expected an NVIDIA GPU: .*found no usable GPU"):
        build_engine(replace(request_for_small_model, flavour="tensorrt"))


def test_the_full_tensorrt_builds_for_its_own_gpu_only(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "package_version", lambda name: "11.4.0.106")
    monkeypatch.setattr(full, "gpu_compute_capabilities", lambda: ("SM90",))
    told = r"^target rtx5080: expected compute capability SM90, this machine's: .*, found SM120\. Build on a machine"
    with pytest.raises(InputError, match=told):
        build_engine(replace(request_for_small_model, flavour="tensorrt"))


def test_rtx_is_refused_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "package_version", lambda name: None)
    with pytest.raises(InputError, match=r"tensorrt-rtx: expected to be installed.*pip install 'tensorrt-rtx"):
        flavour("tensorrt-rtx").check_machine()


def test_the_library_name_the_parser_opens_is_provided() -> None:
    links = flavour("tensorrt-rtx").library_links()
    assert set(links) == {"libtensorrt_rtx.so", *LIBRARIES}
    assert links["libtensorrt_rtx.so"].is_file()


def test_every_product_has_its_adapter() -> None:
    assert {name: adapter.name for name, adapter in FLAVOURS.items()} == {name: name for name in PRODUCTS}


def test_rtx_plans_for_any_gpu_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan needs no builder."""
    monkeypatch.setattr(rtx, "package_version", lambda name: None)
    flavour("tensorrt-rtx").check_targets({"rtx": ("SM86", "SM120")})


def test_rtx_plans_for_no_gpu_that_its_builder_does_not_know() -> None:
    """What is refused at the first engine would be refused after a verification of minutes."""
    told = (
        r"^target sm90-80gib: expected compute capability SM75, SM80, SM86, SM89, SM120 or SM121, for which "
        r"TensorRT-RTX compiles, found SM90\. Leave that target out\.$"
    )
    with pytest.raises(InputError, match=told):
        flavour("tensorrt-rtx").check_targets({"rtx5080": ("SM120",), "sm90-80gib": ("SM90",)})


def test_rtx_compiles_for_what_its_builder_names() -> None:
    trt = flavour("tensorrt-rtx").module()
    assert set(COMPUTE_CAPABILITIES) == set(trt.ComputeCapability.__members__) - {"NONE", "CURRENT"}
    assert tuple(f"SM{name.replace('.', '')}" for name in RTX) == COMPUTE_CAPABILITIES, (
        "what a first run on a card knows"
    )


def test_a_portable_target_is_refused_by_the_full_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "package_version", lambda name: "11.4.0.106")
    monkeypatch.setattr(full, "gpu_compute_capabilities", lambda: ("SM120",))
    flavour("tensorrt").check_targets({"rtx5080": ("SM120",)})
    with pytest.raises(InputError, match=r"^target rtx: expected compute capability SM120, .*found SM86, SM120\."):
        flavour("tensorrt").check_targets({"rtx5080": ("SM120",), "rtx": ("SM86", "SM120")})
