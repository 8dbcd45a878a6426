"""A check of many rows as one test: collecting, reporting and setting up a test costs more than most of the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(check: Callable[..., None], rows: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
    """Run a check on every row, and name all rows that fail.

    Args:
        check: the check; rows are not to depend on each other.
        rows: what to call each, and the arguments.

    Raises:
        ExceptionGroup: what the check raised, with the row's name as a note.
        AssertionError: there are no rows.
    """
    wrong: list[Exception] = []
    count = 0
    for name, arguments in rows:
        count += 1
        try:
            check(*arguments)
        except pytest.fail.Exception as failed:
            wrong.append(AssertionError(f"{name}: {failed.msg}"))
        except Exception as error:
            error.add_note(f"in {name}")
            wrong.append(error)
    assert count, "nothing was checked"
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} of {count} fail", wrong)
