"""What `fuzz` shows: a table that lives on a terminal, plain lines without one, events as JSON lines."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self, assert_never

from ggml_rpc_ref.fuzz.events import Began, Count, Ended, Event, Found, Progressed
from ggml_rpc_ref.fuzz.finds import Find

EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""
SHOWN = 12
"""Finds that the table shows."""


class Report:
    """Takes events and shows them.

    Args:
        as_json: whether to print JSON lines to standard output.
        directory: where the finds are, for the last line.

    Attributes:
        finds: in the order in which they came.
        is_interrupted, why: of the last event.
    """

    def __init__(self, *, as_json: bool, directory: Path | None) -> None:
        self.finds: list[Find] = []
        self.count = Count()
        self.began: Began | None = None
        self.is_interrupted, self.why = False, ""
        self._as_json, self._directory, self._shown = as_json, directory, 0.0
        self._live: Any = None

    @property
    def kinds(self) -> set[str]:
        """The kinds of all finds."""
        return {find.kind.value for find in self.finds}

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._as_json:
            from rich.console import Console
            from rich.live import Live

            # rich honours NO_COLOR by itself
            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def take(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Began():
                self.began = event
                clients = "one client at a time" if event.one_client else "several clients at a time"
                self._say(f"{event.target}: protocol {event.version}, {event.devices} devices, {clients}")
            case Found(find):
                self.finds.append(find)
                self._say(line_of(find))
            case Progressed(count):
                self.count = count
                self._progress()
            case Ended():
                self.count, self.why, self.is_interrupted = event.count, event.why, event.is_interrupted
                if self._live is not None:
                    self._live.update("")
                self._say("\n".join(self._summary()))
            case _:
                assert_never(event)
        if self._as_json:
            print(json.dumps(as_json(event)), flush=True)

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        elif not self._as_json:
            print(line, flush=True)

    def _progress(self) -> None:
        if self._live is not None:
            self._live.update(self._table())
        elif self.count.seconds - self._shown >= EVERY and not self._as_json:
            self._shown = self.count.seconds
            print(self._state(), file=sys.stderr, flush=True)

    def _state(self) -> str:
        count = self.count
        edges = f"{count.edges.bit_count()} edges, " if count.edges else ""
        last = f", the last after {self.finds[-1].seconds:.0f} s" if self.finds else ""
        return (
            f"{count.seconds:.0f} s: {count.messages} messages in {count.sessions} sessions, {count.rate:.0f}/s, "
            f"{count.deaths} deaths, {edges}{len(count.states)} outcomes, {len(self.finds)} finds{last}"
        )

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(title=self._state(), title_justify="left", box=None, show_header=False)
        for find in self.finds[-SHOWN:]:
            table.add_row(f"{find.seconds:.0f} s", find.kind.value, find.about[:100], f"{find.steps} messages, seen {find.seen}")
        return table

    def _summary(self) -> list[str]:
        by_kind = Counter(find.kind.value for find in self.finds)
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(by_kind.items())) or "nothing"
        lines = [self._state(), f"found: {counts}"]
        if self.finds and self._directory is not None:
            lines.append(f"each is in {self._directory} with a script; play one with: ggml-rpc-ref replay FIND HOST:PORT")
        elif self.finds:
            lines.append("--finds DIRECTORY keeps them, each with a script that plays it")
        return lines


def line_of(find: Find) -> str:
    """Return a find in a line."""
    again, tries = find.reproduced
    rule = f" [{find.rule}]" if find.rule else ""
    changed = "; ".join(f"{note.target}: {note.what}" for session in find.sessions for note in session.notes)
    shown = changed or "a well-formed session"
    return f"{find.kind.value.upper()}{rule} {find.about} ({again} of {tries} times, {find.steps} messages; {shown})"


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as a JSON object."""
    match event:
        case Began():
            return {"event": "began", "target": event.target, "protocol": str(event.version), "devices": event.devices}
        case Found(find):
            row = {name: getattr(find, name) for name in ("id", "rule", "about", "reproduced", "steps", "messages")}
            death = None if find.death is None else asdict(find.death)
            return {"event": "found", "kind": find.kind.value, "key": find.key, "seconds": find.seconds, "death": death} | row
        case Progressed(count, finds):
            return {"event": "progressed", "finds": finds} | count_as_json(count)
        case Ended(count, why, is_interrupted):
            return {"event": "ended", "why": why, "interrupted": is_interrupted} | count_as_json(count)
        case _:
            assert_never(event)


def count_as_json(count: Count) -> dict[str, Any]:
    """Return the numbers of a campaign."""
    names = ("seconds", "sessions", "messages", "bytes", "restarts", "deaths", "modelled")
    return {name: getattr(count, name) for name in names} | {"outcomes": len(count.states), "edges": count.edges.bit_count()}
