"""`conform --targets`: many servers judged at the same time, one report of all."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.output import print_error, print_json
from ggml_rpc_ref.commands.writing import shortened, write_file
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance.crews import Heard, Judged
    from ggml_rpc_ref.conformance.fleet import Kept, Member

FORMS = (".json", ".html")
"""The endings of a fleet's reports."""


@dataclass(frozen=True, slots=True)
class Crew:
    """How a fleet is judged.

    Attributes:
        at_once: how many servers at a time.
        dask: address of a cluster's scheduler, or "local"; "": processes of this machine.
        keep: directory of what was judged already; None: nothing is kept.
        reports: files to write.
        as_json: whether the report is printed as JSON.
    """

    at_once: int = 4
    dask: str = ""
    keep: Path | None = None
    reports: tuple[Path, ...] = ()
    as_json: bool = False

    def check(self) -> None:
        """Raise Misuse where a report can't be written."""
        for path in self.reports:
            if path.suffix not in FORMS:
                raise Misuse(f"--report {path}: of several servers there is a report in {' and '.join(FORMS)}")
            if not path.absolute().parent.is_dir():
                raise Misuse(f"can't write {path}: there is no directory {path.parent}")


def judge_fleet(members: Sequence[Member], crew: Crew) -> ExitCode:
    """Judge all servers, print a line for each and write the reports; the exit code is the worst server's."""
    from ggml_rpc_ref.conformance import fleet

    crew.check()
    started = datetime.now(UTC)
    rows = judge_members(members, crew)
    content = fleet.fleet_as_json(list(rows.values()), started)
    for path in crew.reports:
        write_report(path, content)
    if crew.as_json:
        print_json(content, indent=1)
    else:
        print("\n".join(line_of(row) for row in rows.values()))
    if missing := len(members) - len(rows):
        print_error(f"interrupted: {missing} of {len(members)} servers were not begun")
        return ExitCode.INTERRUPTED
    return ExitCode(content["exit_status"])


def judge_members(members: Sequence[Member], crew: Crew) -> dict[str, dict[str, Any]]:
    """Return name to row of the report, in the members' order; lines about what happens go to standard error."""
    from ggml_rpc_ref.conformance.crews import Heard
    from ggml_rpc_ref.conformance.fleet import Kept

    kept = Kept(crew.keep)
    found = {member.name: row for member in members if (row := kept.find(member)) is not None}
    for name in found:
        print(f"{name}: judged before", file=sys.stderr, flush=True)
    with closing(_events([member for member in members if member.name not in found], crew)) as events:
        for event in events:
            if isinstance(event, Heard):
                print(shortened(f"{event.member.name}: {event.line}"), file=sys.stderr, flush=True)
            else:
                found[event.member.name] = _taken(kept, event)
    return {member.name: found[member.name] for member in members if member.name in found}


def _events(members: Sequence[Member], crew: Crew) -> Generator[Heard | Judged, None, None]:
    from ggml_rpc_ref.conformance import crews

    return crews.judge_on(crew.dask, members, crew.at_once) if crew.dask else crews.judge_here(members, crew.at_once)


def _taken(kept: Kept, event: Judged) -> dict[str, Any]:
    kept.add(event.member, event.row)
    print(line_of(event.row), file=sys.stderr, flush=True)
    return event.row


def line_of(row: Mapping[str, Any]) -> str:
    """Return the line that says how a server did."""
    run = row["report"]
    counts = ", ".join(f"{number} {verdict}" for verdict, number in run["counts"].items())
    spoken = f"protocol {run['target']['protocol']}, " if run["target"]["protocol"] else ""
    outcome = ExitCode(row["exit_status"]).name.lower().replace("_", " ")
    said = row["error"] or f"{spoken}{len(run['cases'])} cases{': ' * bool(counts)}{counts}"
    return f"{row['name']}: {'conformant' if outcome == 'ok' else outcome}; {said}"


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write the report of a fleet in the form that the file's ending names.

    Raises:
        Misuse: where that fails.
    """
    import json

    from ggml_rpc_ref.conformance import html

    if path.suffix == ".json":
        write_file(path, json.dumps(content, indent=1) + "\n")
    else:
        write_file(path, html.render([row["report"] for row in content["servers"]]))
