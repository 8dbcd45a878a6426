"""Expected failures: what is known to be wrong with one server and why, so that a run fails only on changes.

A file is a JSON object: case id to `{"verdict": …, "reason": …}`. It is strict: an expected failure that passes, one that fails in
another way, and an id that no case has fail the run, so that the file stays true. Where a server's behaviour varies from run to run
(memory that was freed, or never set), `verdict` is a list of all possible verdicts, PASS among them if need be.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggml_rpc_ref.conformance.case import CASES
from ggml_rpc_ref.conformance.events import Result
from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import Misuse


@dataclass(frozen=True, slots=True)
class Expected:
    """The verdicts that a case may have on this server, and the reason."""

    verdicts: tuple[Verdict, ...]
    reason: str

    def __str__(self) -> str:
        return " or ".join(self.verdicts)


def load(path: Path) -> dict[str, Expected]:
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
    return {id: _expected(path, id, row) for id, row in rows.items()}


def _expected(path: Path, id: str, row: Any) -> Expected:
    where = ascii(id[:60])  # a terminal must not obey what a file says
    if not isinstance(row, dict) or "verdict" not in row:
        raise _other_form(path, f"{where} is not an object with a verdict and a reason")
    if "reason" not in row:
        raise _other_form(path, f"{where} has no reason")
    said = row["verdict"] if isinstance(row["verdict"], list) else [row["verdict"]]
    verdicts = tuple(Verdict(verdict) for verdict in said if verdict in list(Verdict))
    if not said or len(verdicts) < len(said):
        raise _other_form(path, f"{where} has no verdict that a case may have ({', '.join(Verdict)})")
    return Expected(verdicts, str(row["reason"]))


def _other_form(path: Path, problem: str) -> Misuse:
    return Misuse(f"{path} is not a file of expected failures (case id to verdict and reason): {problem}")


def surprises(results: Iterable[Result], expected: Mapping[str, Expected], known: Collection[str] = CASES) -> list[str]:
    """Return a sentence for each case with an unexpected verdict, and for each expected id that is not among the `known`."""
    wrong = [_surprise(result, expected.get(result.case.id)) for result in results]
    unknown = [f"{id}: no case has this id" for id in expected if id not in known]
    return [sentence for sentence in wrong if sentence] + unknown


def _surprise(result: Result, expected: Expected | None) -> str:
    if result.verdict in (Verdict.SKIP, Verdict.UNSUPPORTED):
        return ""  # not judged: neither confirmed nor refuted
    if expected is None:
        return "" if result.verdict in NO_FAULT else f"{result.case.id}: {result.verdict}, which is not expected"
    if result.verdict in expected.verdicts:
        return ""
    return f"{result.case.id}: {result.verdict} where {expected} is expected ({expected.reason})"
