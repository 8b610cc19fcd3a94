"""What is left out of nvidia-smi's report."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.bringup.redaction import LEFT_OUT, without_identities

#: In the form of `nvidia-smi -q` of a 580 driver; every number is made up.
REPORT = """
==============NVSMI LOG==============

Timestamp                                 : Fri Nov 27 02:11:49 2026
Driver Version                            : 580.95.05
CUDA Version                              : 13.0

Attached GPUs                             : 1
GPU 00000000:65:00.0
    Product Name                          : NVIDIA GeForce RTX 5080
    Product Architecture                  : Blackwell
    Display Mode                          : Requested functionality has been deprecated
    Serial Number                         : 1324920012345
    GPU UUID                              : GPU-4f1c9a3e-7b2d-4c58-9e10-5d6a7b8c9d0e
    GPU PDI                               : 0x9d1e2f3a4b5c6d7e
    Minor Number                          : 0
    VBIOS Version                         : 98.03.3B.00.9A
    Board ID                              : 0x6500
    Board Part Number                     : N/A
    Platform Info
        Chassis Serial Number             : SN99887766
        Slot Number                       : 11
        Tray Index                        : 12
        Host ID                           : 13
        Module Id                         : 1
        GPU Fabric GUID                   : 0xdeadbeefcafe0123
    GPU Virtualization Mode
        Virtualization Mode               : None
        Host VGPU Mode                    : N/A
    vGPU Software Licensed Product
        Product Name                      : N/A
        License Status                    : Licensed (Expiry: 2027-1-1 0:0:0 GMT)
    Addressing Mode                       : HMM
    FB Memory Usage
        Total                             : 16303 MiB
        Used                              : 412 MiB
    Fabric
        State                             : N/A
        CliqueId                          : 41
        ClusterUUID                       : 11112222-3333-4444-5555-666677778888
    Processes
        GPU instance ID                   : N/A
        Process ID                        : 4711
            Type                          : C+G
            Name                          : /home/alice/bin/secret-project

            Used GPU Memory               : 300 MiB
    Capabilities
        EGM                               : disabled
"""
SECRETS = (
    *("1324920012345", "4f1c9a3e", "9d1e2f3a", "SN99887766", "deadbeef", "11112222", "666677778888"),
    *("4711", "alice", "secret-project", "2027-1-1"),
)
KEPT = (
    *("580.95.05", "NVIDIA GeForce RTX 5080", "98.03.3B.00.9A", "16303 MiB", "Addressing Mode", "HMM", "disabled"),
    *("GPU 00000000:65:00.0", "Requested functionality has been deprecated"),
)


@pytest.mark.parametrize("secret", SECRETS)
def test_what_names_one_machine_is_left_out(secret: str) -> None:
    assert secret in REPORT
    assert secret not in without_identities(REPORT)


@pytest.mark.parametrize("kept", KEPT)
def test_what_is_needed_is_kept(kept: str) -> None:
    assert kept in without_identities(REPORT)


def test_that_something_was_left_out_is_shown_and_what_the_card_does_not_say_too() -> None:
    lines = {
        line.split(":")[0].strip(): line.split(":", 1)[-1].strip() for line in without_identities(REPORT).splitlines()
    }
    assert lines["Serial Number"] == lines["GPU UUID"] == lines["Processes"] == LEFT_OUT
    assert lines["Host VGPU Mode"] == "N/A"
    assert len(without_identities(REPORT).splitlines()) == len(REPORT.splitlines()) - 6


_FIELDS = ("Serial Number", "GPU UUID", "GPU PDI", "ClusterUUID", "Host ID", "gpu_uuid", "GPU Fabric GUID")


@given(st.sampled_from(_FIELDS), st.text(string.hexdigits + "-_. ", min_size=8).map(str.strip), st.integers(0, 60))
def test_no_value_of_such_a_field_gets_through(field: str, value: str, blanks: int) -> None:
    if len(value) < 8:
        return
    report = REPORT + f"    {field}{' ' * blanks} : {value}\n"
    assert value not in without_identities(report).splitlines()[-1]


@given(st.uuids(), st.sampled_from(["", "GPU-", "MIG-"]), st.text("abc :=", max_size=9))
def test_no_identifier_of_a_card_gets_through_wherever_it_stands(identifier: object, kind: str, before: str) -> None:
    text = f"  Device 0 {before} (UUID {kind}{identifier})\n{kind}{identifier} is on loan\n"
    assert str(identifier) not in without_identities(text)
