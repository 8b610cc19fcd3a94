"""The text of errors."""

from __future__ import annotations

import errno

import pytest

from elastic_runtime.errors import (
    NO_ROOM,
    BuildError,
    ElasticError,
    InputError,
    InternalError,
    advised,
    internal_error,
    is_interrupted,
    machine_error,
)


def test_says_subject_expected_found_and_what_to_do() -> None:
    error = InputError("--x", expected="one", found="two", todo="count again")
    assert str(error) == "--x: expected one, found two. Count again."
    assert (error.exit_code, BuildError("a", expected="b", found="c").exit_code) == (2, 1)


def test_names_out_of_a_file_cannot_steer_a_terminal() -> None:
    error = InputError("tensor \x1b[2J\x07", expected="é", found="a\x0cb\ud800\nc", todo="\x1b[2J it")
    assert str(error) == "tensor \\x1b[2J\\x07: expected é, found a\\x0cb\\ud800\nc. \\x1b[2J it."


def test_a_fault_of_ours_says_so_and_is_told_in_one_line() -> None:
    error = InternalError("node n (Mul)", expected="no mask", found="one\nleft")
    assert isinstance(error, ElasticError)
    assert error.exit_code == 70
    assert str(error).endswith(
        "found one\nleft. "
        "This is a fault of elastic-export or of its runtime; run again with --debug and report what that prints."
    )
    told = "internal error: node n (Mul): expected no mask, found one left. Run it so and report what that prints."
    assert internal_error(error, "it so") == told


def test_a_readers_error_gets_the_advice_unless_it_has_its_own() -> None:
    for own, expected in (("", "x: expected y, found z. Do that."), ("do this", "x: expected y, found z. Do this.")):
        with pytest.raises(InputError) as caught, advised("do that"):
            raise InputError("x", expected="y", found="z", todo=own)
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.ENOSPC, "Free some space there."),
        (errno.EDQUOT, "Free some space there."),
        (
            errno.EFBIG,
            "Raise the limit of a file's size (ulimit -f), or name a file system that takes files of this size.",
        ),
    ],
)
def test_want_of_room_is_the_machines(number: int, todo: str) -> None:
    assert number in NO_ROOM
    assert str(machine_error(OSError(number, "Full", "a"))) == f"a: expected room to write, found Full. {todo}"
    assert str(machine_error(OSError(number, "Full"))).startswith("the disk: expected room to write, found Full.")


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (errno.EACCES, "Change who may use it, or name another place."),
        (errno.EPERM, "Change who may use it, or name another place."),
        (errno.EROFS, "Name a place that can be written."),
        (errno.EIO, "See that its disk is sound and still mounted."),
        (errno.ENAMETOOLONG, "Name a shorter path."),
        (errno.ELOOP, "Name a path of folders, without links in a circle."),
        (errno.ENOTDIR, "Name a path of folders, without links in a circle."),
        (errno.ETXTBSY, "End the program that uses it."),
        (errno.EMFILE, "Raise the limit of open files (ulimit -n)."),
        (errno.ENFILE, "Raise the limit of open files (ulimit -n)."),
        (errno.ENOMEM, "Close other programs."),
    ],
)
def test_refusals_of_the_machine(number: int, todo: str) -> None:
    assert str(machine_error(OSError(number, "No", "a"))) == f"a: expected a usable file, found No. {todo}"
    assert str(machine_error(OSError(number, "No"))) == f"this machine: expected no refusal, found No. {todo}"


def test_a_missing_file_and_what_is_no_os_error_are_faults_of_ours() -> None:
    for error in (FileNotFoundError(errno.ENOENT, "None", "a"), OSError(errno.EINVAL, "Odd", "a"), KeyError("a")):
        assert machine_error(error) is None


def test_ctrl_c_behind_an_error_is_seen() -> None:
    """However far behind; an error of what was done about Ctrl-C is one of its own."""
    behind, own = ImportError("initialization failed"), OSError("while it was tidied up")
    behind.__cause__, own.__context__ = KeyboardInterrupt(), KeyboardInterrupt()
    told = BuildError("the package onnx", expected="it to be installed", found="initialization failed")
    told.__cause__ = behind
    assert [is_interrupted(error) for error in (KeyboardInterrupt(), behind, told, own)] == [True, True, True, False]
