"""What has changed between two runs, from their JSON reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggml_rpc_ref.conformance.verdict import NO_FAULT, Verdict
from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Misuse


@dataclass(frozen=True, slots=True)
class Difference:
    """The cases whose verdict changed, by what that means: id to (verdict before, verdict now); "" where it was not in the run."""

    broken: Mapping[str, tuple[str, str]]
    mended: Mapping[str, tuple[str, str]]
    other: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        rows = {"broken": self.broken, "mended": self.mended, "other": self.other}
        return {name: {id: {"before": a, "now": b} for id, (a, b) in found.items()} for name, found in rows.items()}

    def lines(self) -> Iterator[str]:
        """Yield a line a case."""
        for name, found in (("broken", self.broken), ("mended", self.mended), ("changed", self.other)):
            for id, (before, now) in found.items():
                yield f"{name:<8} {id}: {before or 'not run'} before, {now or 'not run'} now"


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> Difference:
    """Compare two runs, each id to verdict."""
    changed = {
        id: (before.get(id, ""), now.get(id, "")) for id in sorted(before.keys() | now.keys()) if before.get(id) != now.get(id)
    }
    good = {str(verdict) for verdict in NO_FAULT} | {""}
    broken = {id: pair for id, pair in changed.items() if pair[1] not in good}
    mended = {id: pair for id, pair in changed.items() if pair[0] not in good and pair[1] in good}
    return Difference(broken, mended, {id: pair for id, pair in changed.items() if id not in broken and id not in mended})


def read(path: Path) -> dict[str, str]:
    """Return id to verdict from the JSON report of a run.

    Raises:
        Misuse: where the file can't be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(row["id"]): str(Verdict(row["verdict"])) for row in content["cases"]}
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    except NOT_OF_ITS_FORM:
        raise Misuse(f"{path} is not a report of `ggml-rpc-ref conform --json`") from None
