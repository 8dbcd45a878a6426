"""SPEC.md's matrix of clients and servers of all versions, from what was tried, and why pairs break, from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ggml_rpc_ref.derive.markdown import table
from ggml_rpc_ref.protocol.negotiation import breaks
from ggml_rpc_ref.spec.skew import OURS, Tried, tried
from ggml_rpc_ref.spec.versions import PROFILES, Version

CELLS = {"works": "works", "closed": "", "refused": "refuses", "broken": "**breaks**"}
"""Outcome to what stands in the matrix."""


def skew() -> str:
    """Return the matrix of our own two ends, why its pairs break, and where genuine servers do otherwise."""
    rows = {(row.client, row.speaks): row for row in tried() if row.server == row.by == OURS}
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
    """Say which genuine servers and clients were tried, and list what they do otherwise than ours."""
    theirs = [row for row in tried() if (row.server, row.by) != (OURS, OURS)]
    servers = dict.fromkeys((row.speaks, row.server) for row in theirs if row.server != OURS)
    clients = dict.fromkeys((row.client, row.by) for row in theirs if row.by != OURS)
    others = [row for row in theirs if _key(row) != _key(rows.get((row.client, row.speaks)))]
    lines = "\n".join(f"- {_whose(row)}: {_said(row)}" for row in others)
    same = "Each does with our other end as ours does." if not others else "Each does with our other end as ours does, but for:"
    named = f"Genuine servers tried: {_named(servers)}. Genuine clients tried: {_named(clients)}. {same}"
    return named + (f"\n\n{lines}" if lines else "")


def _named(ends: Iterable[tuple[Version, str]]) -> str:
    return ", ".join(f"{version} ({package})" for version, package in ends) or "none"


def _whose(row: Tried) -> str:
    client, server = ("" if name == OURS else f" ({name})" for name in (row.by, row.server))
    return f"client {row.client}{client}, server {row.speaks}{server}"


def _key(row: Tried | None) -> tuple[str, str]:
    return ("", "") if row is None else (row.outcome, row.step)


def _said(row: Tried) -> str:
    return f"{row.outcome} at {row.step} ({row.sign})" if row.outcome == "broken" else row.outcome
