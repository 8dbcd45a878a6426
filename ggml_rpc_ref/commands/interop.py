"""The command `interop`: the suite over every server and client that can be had here, and every client against every server."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.fleet import Crew, judge_members, line_of
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.commands.writing import write_file
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggml_rpc_ref.conformance import Case
    from ggml_rpc_ref.conformance.fleet import Member
    from ggml_rpc_ref.spec.versions import Version

FORMS = (".json", ".html", ".svg")
"""The endings of the matrix's reports."""


def interop(
    report: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Write the matrix as .json, .html (every case of all) or .svg; may be repeated."),
    ] = None,
    version: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Only this protocol version; may be repeated. (default: all)")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these cases, as `conform --only`; may be repeated.")
    ] = None,
    genuine: Annotated[bool, typer.Option("--genuine/--ours-only", help="Also the genuine builds that are installed.")] = True,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long one answer may take; a client's run, four times that.")
    ] = 10.0,
    at_once: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="N servers or clients at a time.")] = 2,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Keep each one's result here, so that the same command goes on.")
    ] = None,
    dask: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Judge on the cluster of this Dask scheduler; local: start one.")
    ] = "",
) -> None:
    """Judge our server by version and backend, our client by version and the genuine ones, and try all clients on all servers."""
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.conformance import fleet
    from ggml_rpc_ref.conformance import interop as summing
    from ggml_rpc_ref.spec.versions import PROFILES

    files = tuple(report or ())
    _check(files)
    versions = [parse_version(text, "--version") for text in version] if version else list(PROFILES)
    for_servers, for_clients = _patterns(tuple(only or ()))
    found: list[tuple[Member, str]] = []
    if for_servers is not None:
        found += _servers(versions, for_servers, timeout, genuine=genuine)
    if for_clients is not None:
        found += _clients(versions, for_clients, timeout, genuine=genuine)
    started = datetime.now(UTC)
    rows = judge_members([member for member, _ in found], Crew(at_once, dask, keep))
    print("\n".join(line_of(row) for row in rows.values()))
    if len(rows) < len(found):
        print_error(f"interrupted: {len(found) - len(rows)} of {len(found)} servers and clients were not begun")
        raise typer.Exit(ExitCode.INTERRUPTED)
    content = fleet.fleet_as_json(list(rows.values()), started)
    matrix = summing.matrix(content, _pairs(versions, genuine=genuine), {member.name: whose for member, whose in found})
    for path in files:
        write_file(path, _formed(path.suffix, content, matrix))
    # those of others may be at fault, which is what the matrix shows; ours may not
    raise typer.Exit(_worst_of_ours(matrix))


def _check(files: tuple[Path, ...]) -> None:
    for path in files:
        if path.suffix not in FORMS:
            raise Misuse(f"--report {path}: its name is to end in one of {', '.join(FORMS)}")
        if not path.absolute().parent.is_dir():
            raise Misuse(f"can't write {path}: there is no directory {path.parent}")


def _patterns(only: tuple[str, ...]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return which of these patterns choose cases for servers and which for clients; None: none is put to them, (): all are.

    Raises:
        Misuse: for a pattern that matches no case of either.
    """
    from ggml_rpc_ref.conformance import CASES, select
    from ggml_rpc_ref.conformance.clients.cases import CLIENT_CASES

    if not only:
        return (), ()
    select(only, among=CASES | CLIENT_CASES)
    mine = [tuple(pattern for pattern in only if _matches(pattern, cases)) for cases in (CASES, CLIENT_CASES)]
    return mine[0] or None, mine[1] or None


def _matches(pattern: str, cases: Mapping[str, Case]) -> bool:
    from ggml_rpc_ref.conformance import select

    try:
        return bool(select((pattern,), among=cases))
    except Misuse:
        return False


def _servers(versions: list[Version], only: tuple[str, ...], timeout: float, *, genuine: bool) -> list[tuple[Member, str]]:
    """Return every server that can be had, with whose it is."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.backends import registry
    from ggml_rpc_ref.conformance.fleet import Member
    from ggml_rpc_ref.conformance.marks import request_since
    from ggml_rpc_ref.spec.messages import DeviceCount
    from ggml_rpc_ref.spec.skew import OURS
    from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
    from ggml_rpc_ref.upstream.rpc_server import spawn_command

    found = [(Member(f"ours {version}", version=str(version), timeout=timeout, only=only), OURS) for version in versions]
    backends = [row.name for row in registry.ROWS if not row.unavailable()] if DEFAULT in versions else []
    for name in backends:
        options = ["-p", "{port}", "-d", f"{name},{name}", "-c", "--cache-dir", "{tmp}", "--proto", str(DEFAULT)]
        command = shlex.join([sys.executable, "-m", "ggml_rpc_ref", "serve", *options])
        found.append((Member(f"ours {DEFAULT}, {name}", spawn=command, timeout=timeout, only=only), OURS))
    for build in upstream.installed() if genuine else ():
        version = Version.parse(build.protocol)
        # a fork speaks a version of its own, so it is judged where all are
        if version in versions or (build.name != build.protocol and set(versions) == set(PROFILES)):
            # before the first version that counts its devices a server has one
            command = shlex.join(spawn_command(build, devices=2 if request_since(DeviceCount) <= version else 1))
            fork = "" if build.name == build.protocol else f"{build.name}_"
            member = Member(f"{fork}llama.cpp {version}", spawn=command, timeout=timeout, only=only)
            found.append((member, str(build.package)))
    return found


def _clients(versions: list[Version], only: tuple[str, ...], timeout: float, *, genuine: bool) -> list[tuple[Member, str]]:
    """Return every client that can be had, with whose it is."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.conformance.clients.program import FIRST, SECOND
    from ggml_rpc_ref.spec.skew import OURS
    from ggml_rpc_ref.spec.versions import Version

    # ours goes on in the version that the server speaks
    scenario = [sys.executable, "-m", "ggml_rpc_ref.client.scenario", FIRST, SECOND]
    found = [(_client(f"ours {version}, client", scenario, version, only, timeout), OURS) for version in versions]
    # a fork's client sends op numbers of its own, which no case knows
    for build in upstream.installed() if genuine else ():
        version = Version.parse(build.protocol)
        if version in versions and build.name == build.protocol:
            command = upstream.client_command(build, [FIRST, SECOND])
            found.append((_client(f"llama.cpp {version}, client", command, version, only, timeout), str(build.package)))
    return found


def _client(name: str, command: list[str], version: Version, only: tuple[str, ...], timeout: float) -> Member:
    from ggml_rpc_ref.conformance.fleet import Member

    return Member(name, client=shlex.join(command), version=str(version), timeout=timeout, only=only)


def _pairs(versions: list[Version], *, genuine: bool) -> list[dict[str, Any]]:
    """Return how clients of these versions get on with servers of these versions."""
    from ggml_rpc_ref.commands.log import servers_unlogged
    from ggml_rpc_ref.commands.skew import tried_pairs

    with servers_unlogged():
        rows = [asdict(row) for row in tried_pairs(versions, versions, genuine=genuine)]
    return [row | {"speaks": str(row["speaks"]), "client": str(row["client"])} for row in rows]


def _formed(suffix: str, content: dict[str, Any], matrix: dict[str, Any]) -> str:
    from ggml_rpc_ref.conformance import html
    from ggml_rpc_ref.derive.interop import picture

    match suffix:
        case ".json":
            return json.dumps(matrix, indent=1, ensure_ascii=False) + "\n"
        case ".svg":
            return picture(matrix)
    return html.render([row["report"] for row in content["servers"]])


def _worst_of_ours(matrix: dict[str, Any]) -> ExitCode:
    from ggml_rpc_ref.spec.skew import OURS

    rows = [*matrix["servers"], *matrix["clients"]]
    return ExitCode(max((row["exit_status"] for row in rows if row["whose"] == OURS), default=0))
