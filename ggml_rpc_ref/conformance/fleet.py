"""Many servers and clients: a file that names them, a judge of each in a process of its own or on a cluster, one report of all.

    [defaults]
    timeout = 10

    [[servers]]
    name = "kitchen"
    endpoint = "192.168.0.7:50052"
    profile = "inference"

    [[servers]]
    spawn = "rpc-server -H 127.0.0.1 -p {port}"
    expect = "known.json"

    [[servers]]
    client = "my-client {endpoint}"

As TOML, or with the same names as JSON. What a server does not say, the defaults say. schema/targets.json describes the form.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ggml_rpc_ref
from ggml_rpc_ref.conformance.case import CASES, Case
from ggml_rpc_ref.conformance.choosing import select
from ggml_rpc_ref.conformance.clients import judging as of_clients
from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES
from ggml_rpc_ref.conformance.clients.program import Command
from ggml_rpc_ref.conformance.diagnosis import check_profile
from ggml_rpc_ref.conformance.events import CaseEnded, Event, Report
from ggml_rpc_ref.conformance.expect import Expected, load
from ggml_rpc_ref.conformance.report import SCHEMA_VERSION, Outcome, as_json, outcome
from ggml_rpc_ref.conformance.runner import Options, judge
from ggml_rpc_ref.conformance.target import Given, Target, embedded, from_command
from ggml_rpc_ref.conformance.text import is_expected
from ggml_rpc_ref.conformance.verdict import NO_FAULT
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.spec.versions import PROFILES, Version

ANSWERS = 4
"""A client asks for many answers in a run; `conform-client` grants it as many times what `conform` grants an answer."""


@dataclass(frozen=True, slots=True)
class Member:
    """One server of a fleet, or one client, and how it is judged; what is meant by each option, `conform --help` says.

    Attributes:
        name: what reports call it; unique in the fleet.
        endpoint: HOST:PORT of a running one.
        spawn: the command that starts one; with neither this nor `client` our own is started.
        client: the command of a client instead, judged as `conform-client` does: we play the server, {endpoint} becomes where.
        version: judge it as a client of this protocol version; "": as the version that it announces. Of a client, what it speaks.
        timeout: seconds that one answer may take; a client's run may take ANSWERS times that.
        jobs: cases at a time.
        repeat: how often each case is run.
        profile: what is asked of it; of a server alone.
        owned: whether cases that may crash it are put to it on another machine; of a server alone.
        expect: the file of its expected failures, "" for none.
        only: patterns of the cases that are put to it; none: all.
        skip: patterns of those that are not.
    """

    name: str = ""
    endpoint: str = ""
    spawn: str = ""
    client: str = ""
    version: str = ""
    timeout: float = 5.0
    jobs: int = 1
    repeat: int = 1
    profile: str = "full"
    owned: bool = False
    expect: str = ""
    only: tuple[str, ...] = field(default=())
    skip: tuple[str, ...] = field(default=())

    def check(self) -> None:
        """Raise Misuse where it can't be judged as it stands."""
        if (self.endpoint, self.spawn, self.client).count("") < 2:
            raise Misuse("give one of endpoint, spawn and client, not several")
        if self.endpoint:
            parse_endpoint(self.endpoint)
        if self.spawn:
            from_command(self.spawn)
        if self.client:
            self.program()
        if self.version and self.own not in PROFILES:
            raise Misuse(f"version {self.version}: known are {', '.join(map(str, PROFILES))}")
        if self.timeout <= 0 or self.jobs < 1 or self.repeat < 1:
            raise Misuse("timeout is to be above 0, jobs and repeat at least 1")
        check_profile(self.profile)
        self.chosen()
        if self.expect:
            load(Path(self.expect))

    @property
    def own(self) -> Version | None:
        """The version by which it is judged; None: the one that it announces."""
        try:
            return Version.parse(self.version) if self.version else None
        except ValueError as error:
            raise Misuse(f"version {self.version}: {error}") from None

    def target(self) -> Target:
        """Return the server."""
        if self.endpoint:
            found: Target = Given(parse_endpoint(self.endpoint))
        else:
            found = from_command(self.spawn) if self.spawn else embedded(self.own)
        found.name = self.name
        return found

    def program(self) -> Command:
        """Return the client.

        Raises:
            Misuse: where its command can't be read, or does not hold {endpoint}.
        """
        try:
            return Command(shlex.split(self.client), self.name)
        except ValueError as error:
            raise Misuse(f"client {self.client!r}: {error}") from None

    @property
    def known(self) -> Mapping[str, Case]:
        """All cases for what it is."""
        return CLIENT_CASES if self.client else CASES

    def chosen(self) -> list[Case]:
        """Return the cases that are put to it."""
        return select(self.only, self.skip, self.known)

    def options(self) -> Options:
        """Return how it is judged, where it is a server."""
        return Options(self.timeout, self.owned, self.profile, self.repeat, self.jobs, self.own)

    @property
    def mark(self) -> str:
        """What its result depends on, beside the server: a result with another mark is of no use any more."""
        known = Path(self.expect).read_text(encoding="utf-8") if self.expect else ""
        said = json.dumps([asdict(self), known, ggml_rpc_ref.__version__, list(self.known)])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------- the file

_KINDS: Mapping[str, str] = {member.name: str(member.type) for member in fields(Member)}


def _is_of(kind: str, value: object) -> bool:
    """Whether a value of a file is of the kind that a field has."""
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    return isinstance(value, str if kind == "str" else (int, float) if kind == "float" else int)


def read(path: Path, defaults: Member | None = None) -> list[Member]:
    """Return the fleet that a file names.

    Args:
        path: TOML, or JSON where its name ends so.
        defaults: what holds where neither a server nor the file's own defaults say otherwise.

    Raises:
        Misuse: where it can't be read, names no server or one twice, or says of one what can't be.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise Misuse(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # both decoders' errors, and what is not UTF-8
        raise Misuse(f"{path} can't be read as {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from None
    rows = content.get("servers") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or set(content) - {"servers", "defaults", "$schema"}:
        raise Misuse(f"{path} is not a fleet: it has a list `servers`, and perhaps `defaults`")
    base = _member(path, "defaults", content.get("defaults", {}), defaults or Member())
    members = [_member(path, f"server {number}", row, base) for number, row in enumerate(rows, 1)]
    named = [replace(member, name=member.name or _command_or_address(member)) for member in members]
    for number, member in enumerate(named, 1):
        try:
            member.check()
        except Misuse as error:
            raise Misuse(f"{path}, server {number} ({member.name}): {error}") from None
        if member.name in {other.name for other in named[: number - 1]}:
            raise Misuse(f"{path}, server {number}: another one is called {member.name}; give each a `name`")
    return named


def _command_or_address(member: Member) -> str:
    return member.endpoint or member.spawn or member.client or "ggml-rpc-ref serve"


def _member(path: Path, where: str, row: Any, base: Member) -> Member:
    if not isinstance(row, dict):
        raise Misuse(f"{path}, {where}: it is not a table of names and values")
    said: dict[str, Any] = {}
    for key, value in row.items():
        if key not in _KINDS:
            raise Misuse(f"{path}, {where}: {key[:40]!a} means nothing; known are {', '.join(_KINDS)}")
        if not _is_of(_KINDS[key], value):
            raise Misuse(f"{path}, {where}: {key} can't be {str(value)[:40]!a}")
        said[key] = tuple(value) if isinstance(value, list) else value
    if said.get("expect"):
        said["expect"] = str(path.parent / said["expect"])
    return replace(base, **said)


# --------------------------------------------------------------------------------------------------------------- judging


def judge_member(member: Member, heard: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Judge one server or client from beginning to end, and return its row of the fleet's report.

    One that can't be reached, or started, has a row that says so; an interrupt (KeyboardInterrupt) ends the run, and the row holds
    what was judged before.

    Args:
        member: the server or client.
        heard: gets a line for each failure that was not expected, as it is found.
    """
    expected = load(Path(member.expect)) if member.expect else None
    known: Mapping[str, Expected] = expected or {}
    report, error = Report(target=member.name, known=member.known), ""
    try:
        for event in _judged(member):
            report.take(event)
            if isinstance(event, CaseEnded) and event.result.verdict not in NO_FAULT and not is_expected(event.result, known):
                heard(f"{event.result.verdict} {event.result.case.id}: {event.result.detail}")
    except (ConnectionError, TimeoutError, Misuse) as problem:
        error = str(problem)
    except KeyboardInterrupt:
        report.is_interrupted = True
    status = Outcome.UNREACHABLE if error else outcome(report, expected)
    return row_of(member, status, error, as_json(report, status, expected))


def _judged(member: Member) -> Iterator[Event]:
    if not member.client:
        return judge(member.target(), member.chosen(), member.options())
    how = of_clients.Options(ANSWERS * member.timeout, member.own, repeat=member.repeat, jobs=member.jobs)
    return of_clients.judge(member.program(), member.chosen(), how)


def row_of(member: Member, status: Outcome, error: str, report: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the row of a server or client in the fleet's report."""
    run = dict(report) if report else as_json(Report(target=member.name, party="client" if member.client else "server"), status)
    return {"name": member.name, "mark": member.mark, "exit_status": int(status), "error": error, "report": run | {"error": error}}


def fleet_as_json(rows: Sequence[Mapping[str, Any]], started: datetime) -> dict[str, Any]:
    """Return the report of a fleet; its exit status is the worst of all, an interrupt first and then a defect of ours."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ggml-rpc-ref", "version": ggml_rpc_ref.__version__},
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "exit_status": max((row["exit_status"] for row in rows), key=_WORSE.index, default=0),
        "servers": [{key: value for key, value in row.items() if key != "mark"} for row in rows],
    }


_WORSE = [int(it) for it in (Outcome.CONFORMANT, Outcome.NON_CONFORMANT, Outcome.UNREACHABLE, Outcome.CRASHED)] + [
    int(Outcome.TOOL_FAILED),
    int(Outcome.INTERRUPTED),
]
"""Exit statuses from the best to the worst."""


# -------------------------------------------------------------------------------------------------------------- resuming


class Kept:
    """The rows of a fleet's servers that were judged to the end, kept in a directory so that an interrupted run can go on.

    Args:
        directory: a file for each server; None: nothing is kept.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Misuse(f"can't write {directory}: {error.strerror}") from None

    def find(self, member: Member) -> dict[str, Any] | None:
        """Return a server's row, where it was judged in the same way before."""
        path = self._path(member)
        try:
            row = json.loads(path.read_text(encoding="utf-8")) if path else None
        except (OSError, ValueError):
            return None
        return row if isinstance(row, dict) and row.get("mark") == member.mark else None

    def add(self, member: Member, row: Mapping[str, Any]) -> None:
        """Keep a row, unless the server was not reached, its run was interrupted or its judge failed: the next run tries again."""
        path = self._path(member)
        if path is None or row["exit_status"] in (Outcome.UNREACHABLE, Outcome.INTERRUPTED, Outcome.TOOL_FAILED):
            return
        partial = path.with_suffix(".part")
        try:
            partial.write_text(json.dumps(row), encoding="utf-8")
            partial.replace(path)  # at once: a run that dies while it writes leaves no half of a row
        except OSError as error:
            raise Misuse(f"can't write {path}: {error.strerror}") from None

    def _path(self, member: Member) -> Path | None:
        if self.directory is None:
            return None
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", member.name)[:60]
        return self.directory / f"{words}-{hashlib.sha256(member.name.encode()).hexdigest()[:8]}.json"
