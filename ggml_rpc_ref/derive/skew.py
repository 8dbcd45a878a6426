"""SPEC.md's matrix of clients and servers of all versions, from what was tried, and why pairs break, from the tables."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from ggml_rpc_ref.derive.markdown import table
from ggml_rpc_ref.protocol.negotiation import breaks
from ggml_rpc_ref.spec.skew import OURS, Tried, tried
from ggml_rpc_ref.spec.versions import PROFILES, Version

CELLS = {"works": "works", "closed": "", "refused": "refuses", "broken": "**breaks**"}
"""Outcome to what stands in the matrix."""


def skew() -> str:
    """Return the matrix of our own two ends, why its pairs break, and where genuine servers do otherwise."""
    rows = {(row.client, row.speaks): row for row in tried() if row.server == OURS}
    head = ("Client ↓ / server →", *map(str, PROFILES))
    body = [
        (f"**{client}**", *(CELLS[rows[client, server].outcome] if (client, server) in rows else "" for server in PROFILES))
        for client in PROFILES
    ]
    broken = "\n".join(f"- {line}" for line in _broken(rows))
    return f"{table(head, body)}\n\nPairs that break, and what is wrong between the two:\n\n{broken}\n\n{_genuine(rows)}"


def _broken(rows: dict[tuple[Version, Version], Tried]) -> Iterator[str]:
    for (client, server), row in rows.items():
        if row.outcome == "broken":
            reasons = "; ".join(breaks(client, server))
            yield f"client {client}, server {server}: ends at {row.step} ({row.sign}): {reasons}"


def _genuine(rows: dict[tuple[Version, Version], Tried]) -> str:
    """Say which genuine servers were tried, and list what they do otherwise than ours."""
    theirs = [row for row in tried() if row.server != OURS]
    servers = ", ".join(f"{speaks} ({server})" for (speaks, server), _ in groupby(theirs, lambda row: (row.speaks, row.server)))
    if not servers:
        return "No genuine server has been tried."
    others = [row for row in theirs if _key(row) != _key(rows.get((row.client, row.speaks)))]
    lines = "\n".join(f"- client {row.client}, server {row.speaks}: {_said(row)}" for row in others)
    same = "; with every client they do as ours do." if not others else "; they do as ours do, but for:"
    return f"Genuine servers tried with all of these clients: {servers}{same}" + (f"\n\n{lines}" if lines else "")


def _key(row: Tried | None) -> tuple[str, str]:
    return ("", "") if row is None else (row.outcome, row.step)


def _said(row: Tried) -> str:
    return f"{row.outcome} at {row.step} ({row.sign})" if row.outcome == "broken" else row.outcome
