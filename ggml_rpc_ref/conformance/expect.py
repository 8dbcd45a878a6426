"""Expected failures: what is known to be wrong with one server and why, so that a run fails only on changes.

A file is a JSON object: case id, or a pattern with *, ? and [...], to

    {"verdict": "FAIL", "reason": "…", "reference": "https://…", "review_by": "2027-01-31"}

of which `reference` and `review_by` may be left out. `conform --write-expect` writes one; schema/expect.json describes the form.
It is strict: an expected failure that passes, one that fails in another way, and an id or a pattern that no case has fail the run,
so that the file stays true. Where a server's behaviour varies from run to run (memory that was freed, or never set), `verdict` is a
list of all possible verdicts, PASS among them if need be. An id says more than a pattern, and a later pattern more than an earlier.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ggml_rpc_ref.conformance.case import CASES
from ggml_rpc_ref.conformance.events import Result
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import Misuse

NOT_LOOKED_AT = "not looked at yet"
"""The reason that `written` gives: somebody is to replace it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The verdicts that a case may have on this server, and the reason.

    Attributes:
        verdicts: any of these.
        reason: why.
        reference: where more is said, for instance the address of an issue.
        review_by: the day on which somebody is to look again; None: none was set.
    """

    verdicts: tuple[Verdict, ...]
    reason: str
    reference: str = ""
    review_by: date | None = None

    def __str__(self) -> str:
        return " or ".join(self.verdicts)


class Baseline(Mapping[str, Expected]):
    """Case id to what is expected of it; its keys are the ids and patterns of a file."""

    def __init__(self, rows: Mapping[str, Expected]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, id: str) -> Expected:
        if id in self._rows:
            return self._rows[id]
        for pattern, row in reversed(self._rows.items()):
            if fnmatchcase(id, pattern):
                return row
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def overdue(self, today: date) -> list[str]:
        """Return a sentence for each row that was to be looked at again before today."""
        return [
            f"{id}: it was to be looked at again by {row.review_by} ({row.reason})"
            for id, row in self._rows.items()
            if row.review_by is not None and row.review_by < today
        ]


def load(path: Path) -> Baseline:
    """Read a file of expected failures.

    Raises:
        Misuse: where it can't be read, or has another form.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _other_form(path, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _other_form(path, f"line {error.lineno} is not JSON: {error.msg}") from None
    except (ValueError, RecursionError):  # endless digits or brackets
        raise _other_form(path, "its JSON can't be read") from None
    if not isinstance(rows, dict):
        raise _other_form(path, "it is not a JSON object")
    return Baseline({id: _expected(path, id, row) for id, row in rows.items() if id != "$schema"})


def _expected(path: Path, id: str, row: Any) -> Expected:
    where = ascii(id[:60])  # a terminal must not obey what a file says
    if not isinstance(row, dict) or "verdict" not in row:
        raise _other_form(path, f"{where} is not an object with a verdict and a reason")
    if "reason" not in row:
        raise _other_form(path, f"{where} has no reason")
    if unknown := sorted(set(row) - {"verdict", "reason", "reference", "review_by"}):
        raise _other_form(path, f"{where} has {unknown[0][:60]!a}, which means nothing here")
    said = row["verdict"] if isinstance(row["verdict"], list) else [row["verdict"]]
    verdicts = tuple(Verdict(verdict) for verdict in said if verdict in list(Verdict))
    if not said or len(verdicts) < len(said):
        raise _other_form(path, f"{where} has no verdict that a case may have ({', '.join(Verdict)})")
    return Expected(verdicts, str(row["reason"]), str(row.get("reference", "")), _day(path, where, row.get("review_by")))


def _day(path: Path, where: str, text: Any) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except (ValueError, TypeError):
        raise _other_form(path, f"{where} has a review_by that is not a day like 2027-01-31") from None


def _other_form(path: Path, problem: str) -> Misuse:
    return Misuse(f"{path} is not a file of expected failures (case id to verdict and reason): {problem}")


def surprises(results: Iterable[Result], expected: Mapping[str, Expected], known: Collection[str] = CASES) -> list[str]:
    """Return a sentence for each case with an unexpected verdict, and for each expected id that is not among the `known`."""
    wrong = [_surprise(result, expected.get(result.case.id)) for result in results]
    unknown = [f"{id}: no case has this id" for id in expected if not _names_one(id, known)]
    return [sentence for sentence in wrong if sentence] + unknown


def _names_one(id: str, known: Collection[str]) -> bool:
    return id in known or any(fnmatchcase(other, id) for other in known)


def _surprise(result: Result, expected: Expected | None) -> str:
    if result.verdict in (Verdict.SKIP, Verdict.UNSUPPORTED):
        return ""  # not judged: neither confirmed nor refuted
    if expected is None:
        return "" if result.verdict in NO_FAULT else f"{result.case.id}: {result.verdict}, which is not expected"
    if result.verdict in expected.verdicts:
        return ""
    return f"{result.case.id}: {result.verdict} where {expected} is expected ({expected.reason})"


def written(results: Iterable[Result], before: Mapping[str, Expected]) -> dict[str, dict[str, Any]]:
    """Return the content of a file that expects what was found; what an earlier file said of the same verdict is kept."""
    rows = {}
    for result in sorted(results, key=lambda result: result.case.id):
        if result.verdict in NO_FAULT:
            continue
        known = before.get(result.case.id)
        if known is not None and result.verdict in known.verdicts:
            rows[result.case.id] = _as_json(known)
        else:
            rows[result.case.id] = {"verdict": result.verdict.value, "reason": f"{NOT_LOOKED_AT}: {result.detail}"[:300]}
    return rows


def _as_json(row: Expected) -> dict[str, Any]:
    verdicts = [verdict.value for verdict in row.verdicts]
    rest = {"reference": row.reference, "review_by": row.review_by and row.review_by.isoformat()}
    return {"verdict": verdicts if len(verdicts) > 1 else verdicts[0], "reason": row.reason} | {k: v for k, v in rest.items() if v}
