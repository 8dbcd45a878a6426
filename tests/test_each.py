"""`tests.support.each`: a row that fails is seen and named, and so is a check without rows."""

from __future__ import annotations

import pytest

from tests.support.each import each


def is_even(number: int) -> None:
    if number > 100:
        pytest.fail("too large")
    assert number % 2 == 0


def test_rows_that_fail_are_named() -> None:
    each(is_even, [("two", (2,)), ("four", (4,))])
    with pytest.raises(ExceptionGroup, match="2 of 3 fail") as caught:
        each(is_even, [("two", (2,)), ("three", (3,)), ("many", (102,))])
    first, second = caught.value.exceptions
    assert first.__notes__ == ["in three"]
    assert "many: too large" in str(second)


def test_a_check_of_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="nothing"):
        each(is_even, [])
