"""How clients of each version get on with servers of each: what `ggml-rpc-ref skew` has tried, kept in skew.json beside this."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from ggml_rpc_ref.spec.versions import Version

OURS = "ours"
"""The name of our own server, and of our own client."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One pair.

    Attributes:
        server: whose server: "ours", or the package that a genuine one was built from.
        speaks: its version.
        client: the client's version, which it kept to as llama.cpp's do.
        outcome: "works", "closed" (on HELLO), "refused" (by the client, when it heard the version) or "broken" (later).
        step: the request at which it ended; "" where everything works.
        sign: what the client noticed there.
        by: whose client: "ours", or the package that a genuine one was built from.
    """

    server: str
    speaks: Version
    client: Version
    outcome: str
    step: str = ""
    sign: str = ""
    by: str = OURS

    @property
    def pair(self) -> tuple[str, Version, str, Version]:
        """Which client was tried against which server."""
        return self.server, self.speaks, self.by, self.client


def as_json(rows: Iterable[Tried]) -> str:
    """Return the file's text: one pair a line."""
    lines = [json.dumps(asdict(row) | {"speaks": str(row.speaks), "client": str(row.client)}) for row in rows]
    return '{"schema_version": 1, "pairs": [\n' + ",\n".join(lines) + "\n]}\n"


def from_json(text: str) -> list[Tried]:
    """Return the pairs in a file's text."""
    return [_row(row) for row in json.loads(text)["pairs"]]


def _row(row: Mapping[str, Any]) -> Tried:
    return Tried(**{**row, "speaks": Version.parse(row["speaks"]), "client": Version.parse(row["client"])})


@cache
def tried() -> tuple[Tried, ...]:
    """Return every pair that has been tried."""
    return tuple(from_json(resources.files("ggml_rpc_ref.spec").joinpath("skew.json").read_text(encoding="utf-8")))
