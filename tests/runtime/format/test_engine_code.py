"""Host code in engine files is found wherever it lies; kernels are none."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.format.engine_code import Code, HostCode, host_code
from plugin_libraries_folder import library_bytes

LIBRARY, OTHER = library_bytes("one"), library_bytes("two")
CODE = Code(len(LIBRARY), hashlib.sha256(LIBRARY).hexdigest())
CUDA, ARM = 190, 183


@given(before=st.binary(max_size=60), after=st.binary(max_size=60))
def test_a_library_is_found_wherever_it_lies(before: bytes, after: bytes) -> None:
    assert host_code(before + LIBRARY + after, [CODE]) == HostCode((CODE,), ())
    assert host_code(before + LIBRARY + after, []) == HostCode((), (len(before),))
    assert host_code(before + LIBRARY + OTHER + after, [CODE]) == HostCode((CODE,), (len(before) + len(LIBRARY),))


@given(at=st.integers(0, len(LIBRARY) - 1), by=st.integers(1, 255))
def test_a_changed_byte_makes_it_another_one(at: int, by: int) -> None:
    changed = bytearray(LIBRARY)
    changed[at] ^= by
    assert host_code(bytes(changed), [CODE]).known == ()


def test_kernels_are_no_code_for_the_host() -> None:
    assert host_code(library_bytes("kernel", CUDA) * 3, []) == HostCode((), ())
    assert host_code(library_bytes("other", ARM), []) == HostCode((), (0,))


def test_a_library_inside_a_known_one_belongs_to_it() -> None:
    outer = LIBRARY + OTHER
    known = Code(len(outer), hashlib.sha256(outer).hexdigest())
    assert host_code(b"vtrt" + outer, [known]) == HostCode((known,), ())


def test_a_library_cut_short_is_none_that_is_known() -> None:
    assert host_code(LIBRARY[:-1], [CODE]) == HostCode((), (0,))
    assert host_code(LIBRARY[:20], [CODE]) == HostCode((), ())


@pytest.mark.parametrize("place", [4, 5, 6])
def test_what_no_loader_takes_is_none(place: int) -> None:
    broken = bytearray(LIBRARY)
    broken[place] = 9
    assert host_code(bytes(broken), []) == HostCode((), ())
