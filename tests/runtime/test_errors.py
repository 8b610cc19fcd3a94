"""The text of errors."""

from __future__ import annotations

from elastic_runtime.errors import BuildError, InputError


def test_says_subject_expected_found_and_what_to_do() -> None:
    error = InputError("--x", expected="one", found="two", todo="count again")
    assert str(error) == "--x: expected one, found two. Count again."
    assert (error.exit_code, BuildError("a", expected="b", found="c").exit_code) == (2, 1)


def test_names_out_of_a_file_cannot_steer_a_terminal() -> None:
    error = InputError("tensor \x1b[2J\x07", expected="é", found="a\x0cb\ud800\nc", todo="\x1b[2J it")
    assert str(error) == "tensor \\x1b[2J\\x07: expected é, found a\\x0cb\\ud800\nc. \\x1b[2J it."
