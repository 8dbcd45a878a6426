"""What a fleet's report comes down to: for each server and client how many cases pass, by level and section, and what it breaks.

The interop matrix is this for all that can be had, beside how clients of each version get on with servers of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import ggml_rpc_ref
from ggml_rpc_ref.conformance.verdict import NO_FAULT, SEVERITY, Verdict

VERSION: Final = 1
"""Of the form."""
NOT_JUDGED: Final = (Verdict.SKIP, Verdict.UNSUPPORTED)


def matrix(fleet: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], whose: Mapping[str, str]) -> dict[str, Any]:
    """Return the matrix.

    Args:
        fleet: the report of all servers and clients, as `fleet.fleet_as_json` returns it.
        pairs: how clients get on with servers, as the rows of spec/skew.json.
        whose: name of a server or client to whose it is: "ours", or a package.
    """
    rows = [row_of(row) | {"whose": whose[row["name"]]} for row in fleet["servers"]]
    return {
        "schema_version": VERSION,
        "tool": {"name": "ggml-rpc-ref", "version": ggml_rpc_ref.__version__},
        "started": fleet["started"],
        "servers": [row for row in rows if row["party"] == "server"],
        "clients": [row for row in rows if row["party"] == "client"],
        "pairs": list(pairs),
    }


def row_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the row of a server or client in a fleet's report comes down to."""
    cases = row["report"]["cases"]
    target = row["report"]["target"]
    return {
        "name": row["name"],
        "party": target["party"],
        "protocol": target["protocol"],
        "devices": target["device_count"],
        "exit_status": row["exit_status"],
        "error": row["error"],
        "counts": row["report"]["counts"],
        "levels": _share(cases, lambda case: str(case["level"])),
        "sections": _share(cases, lambda case: str(case["rule"]).partition(".")[0]),
        "broken": dict(sorted(_broken(cases).items())),
    }


def _share(cases: Iterable[Mapping[str, Any]], key: Any) -> dict[str, list[int]]:
    """Return how many of the cases that could be judged passed, and how many these are, by a key."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for case in cases:
        if case["verdict"] not in NOT_JUDGED:
            found[key(case)][0] += case["verdict"] == Verdict.PASS
            found[key(case)][1] += 1
    return dict(found)


def _broken(cases: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the rules that were found broken, with the worst verdict of each."""
    found: dict[str, str] = {}
    for case in cases:
        if case["verdict"] not in NO_FAULT:
            verdicts = (found.get(case["broken_rule"], Verdict.PASS), case["verdict"])
            found[case["broken_rule"]] = str(max(verdicts, key=lambda verdict: SEVERITY.index(Verdict(verdict))))
    return found
