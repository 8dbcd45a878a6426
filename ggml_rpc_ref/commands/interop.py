"""The command `interop`: the suite over every server that can be had here, and every client against every server."""

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
    from ggml_rpc_ref.conformance.fleet import Member
    from ggml_rpc_ref.spec.versions import Version

FORMS = (".json", ".html", ".svg")
"""The endings of the matrix's reports."""


def interop(
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Write the matrix as .json, .html (every case of every server) or .svg; may be repeated."
        ),
    ] = None,
    version: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Only this protocol version; may be repeated. (default: all)")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these cases, as `conform --only`; may be repeated.")
    ] = None,
    genuine: Annotated[bool, typer.Option("--genuine/--ours-only", help="Also the genuine builds that are installed.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long one answer may take.")] = 10.0,
    at_once: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="N servers at a time.")] = 2,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Keep each server's result here, so that the same command goes on.")
    ] = None,
    dask: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Judge on the cluster of this Dask scheduler; local: start one.")
    ] = "",
) -> None:
    """Judge our server by version and backend and the genuine ones that are installed, and try clients of each version on them."""
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.conformance import fleet
    from ggml_rpc_ref.conformance import interop as summing
    from ggml_rpc_ref.spec.versions import PROFILES

    files = tuple(report or ())
    _check(files)
    versions = [parse_version(text, "--version") for text in version] if version else list(PROFILES)
    found = _servers(versions, tuple(only or ()), timeout, genuine=genuine)
    started = datetime.now(UTC)
    rows = judge_members([member for member, _ in found], Crew(at_once, dask, keep))
    print("\n".join(line_of(row) for row in rows.values()))
    if len(rows) < len(found):
        print_error(f"interrupted: {len(found) - len(rows)} of {len(found)} servers were not begun")
        raise typer.Exit(ExitCode.INTERRUPTED)
    content = fleet.fleet_as_json(list(rows.values()), started)
    matrix = summing.matrix(content, _pairs(versions, genuine=genuine), {member.name: whose for member, whose in found})
    for path in files:
        write_file(path, _formed(path.suffix, content, matrix))
    # servers of others may be at fault, which is what the matrix shows; ours may not
    raise typer.Exit(_worst_of_ours(matrix))


def _check(files: tuple[Path, ...]) -> None:
    for path in files:
        if path.suffix not in FORMS:
            raise Misuse(f"--report {path}: its name is to end in one of {', '.join(FORMS)}")
        if not path.absolute().parent.is_dir():
            raise Misuse(f"can't write {path}: there is no directory {path.parent}")


def _servers(versions: list[Version], only: tuple[str, ...], timeout: float, *, genuine: bool) -> list[tuple[Member, str]]:
    """Return every server that can be had, with whose it is."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.backends import registry
    from ggml_rpc_ref.conformance.fleet import Member
    from ggml_rpc_ref.conformance.marks import request_since
    from ggml_rpc_ref.spec.messages import DeviceCount
    from ggml_rpc_ref.spec.skew import OURS
    from ggml_rpc_ref.spec.versions import DEFAULT, Version
    from ggml_rpc_ref.upstream.rpc_server import spawn_command

    found = [(Member(f"ours {version}", version=str(version), timeout=timeout, only=only), OURS) for version in versions]
    backends = [row.name for row in registry.ROWS if not row.unavailable()] if DEFAULT in versions else []
    for name in backends:
        options = ["-p", "{port}", "-d", f"{name},{name}", "-c", "--cache-dir", "{tmp}", "--proto", str(DEFAULT)]
        command = shlex.join([sys.executable, "-m", "ggml_rpc_ref", "serve", *options])
        found.append((Member(f"ours {DEFAULT}, {name}", spawn=command, timeout=timeout, only=only), OURS))
    for build in upstream.installed() if genuine else ():
        version = Version.parse(build.protocol)
        if version in versions:
            # before the first version that counts its devices a server has one
            command = shlex.join(spawn_command(build, devices=2 if request_since(DeviceCount) <= version else 1))
            fork = "" if build.name == build.protocol else f"{build.name}_"
            member = Member(f"{fork}llama.cpp {version}", spawn=command, timeout=timeout, only=only)
            found.append((member, str(build.package)))
    return found


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

    return ExitCode(max((row["exit_status"] for row in matrix["servers"] if row["whose"] == OURS), default=0))
