"""The command `skew`: try clients of each version against servers of each, ours and the genuine ones that are installed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.log import servers_unlogged
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.errors import Misuse

if TYPE_CHECKING:
    from ggml_rpc_ref.spec.skew import Tried
    from ggml_rpc_ref.spec.versions import Version
    from ggml_rpc_ref.upstream import Build, Server


def skew(
    client: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Only clients of this version; may be repeated. (default: all)")
    ] = None,
    server: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Only servers of this version; may be repeated. (default: all)")
    ] = None,
    genuine: Annotated[
        bool, typer.Option("--genuine/--ours-only", help="Also the genuine servers and clients that are installed.")
    ] = True,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what was tried to this file, as JSON.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what is known; 0: the same, 1: a pair gets on otherwise.")
    ] = False,
) -> None:
    """Try clients of each version against servers of each: which pairs work, are refused, or break, and where."""
    from ggml_rpc_ref.spec import skew as known
    from ggml_rpc_ref.spec.versions import PROFILES

    clients, servers = _chosen(client, PROFILES), _chosen(server, PROFILES)
    rows: list[Tried] = []
    with servers_unlogged():
        for row in tried_pairs(clients, servers, genuine=genuine):
            rows.append(row)
            typer.echo(_line(row))
    if write is not None:
        write.write_text(known.as_json(rows), encoding="utf-8")
    if check:
        wrong, untried = _differences(rows, known.tried())
        for sentence in (*untried, *wrong):
            print_error(sentence)
        raise typer.Exit(ExitCode.NON_CONFORMANT if wrong else ExitCode.OK)


def _chosen(texts: Sequence[str] | None, known: Iterable[Version]) -> list[Version]:
    from ggml_rpc_ref.commands.parsing import parse_version

    return [parse_version(text, "--client and --server") for text in texts] if texts else list(known)


def tried_pairs(clients: Sequence[Version], servers: Sequence[Version], *, genuine: bool) -> Iterator[Tried]:
    """Yield each pair as it has been tried: our servers first, then the genuine ones that are installed."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.server.host import make_host
    from ggml_rpc_ref.server.server import Server
    from ggml_rpc_ref.spec.skew import OURS, Tried
    from ggml_rpc_ref.spec.versions import Version

    # a fork's build is named otherwise: it is not one of the version that it names
    builds = {Version.parse(it.protocol): it for it in (upstream.installed() if genuine else ()) if it.name == it.protocol}
    for version in servers:
        with Server(make_host("oracle", memory=2**26, proto=str(version))) as own:
            yield from _against(own.endpoint, OURS, version, clients)
            for client, build in builds.items():
                if client in clients:
                    yield Tried(OURS, version, client, *upstream.trial(build, own.endpoint), str(build.package))
    for version, build in builds.items():
        if version in servers:
            yield from _against_genuine(build, version, clients)


def _against(endpoint: str, name: str, speaks: Version, clients: Sequence[Version]) -> Iterator[Tried]:
    from ggml_rpc_ref.client.trial import trial
    from ggml_rpc_ref.spec.skew import Tried

    for version in clients:
        found = trial(endpoint, version)
        yield Tried(name, speaks, version, str(found.outcome), found.step, found.sign)


def _against_genuine(build: Build, speaks: Version, clients: Sequence[Version]) -> Iterator[Tried]:
    """Yield each pair with a genuine server; after one that breaks, the next client meets a fresh one."""
    from ggml_rpc_ref import upstream

    waiting = list(clients)
    while waiting:
        with upstream.server(build.name) as theirs:
            while waiting:
                version = waiting.pop(0)
                (row,) = _against(theirs.endpoint, str(build.package), speaks, [version])
                if row.outcome == "broken":
                    yield replace(row, sign="the server dies" if _has_died(theirs) else row.sign)
                    break
                yield row


def _has_died(server: Server) -> bool:
    """Whether a server is gone; one that is dying may take a moment."""
    end = time.monotonic() + 2.0
    while server.alive() and time.monotonic() < end:
        time.sleep(0.05)
    return not server.alive()


def _line(row: Tried) -> str:
    from ggml_rpc_ref.spec.skew import OURS

    where = f" at {row.step}: {row.sign}" if row.outcome == "broken" else ""
    whose = "our server" if row.server == OURS else f"the server of {row.server}, which speaks"
    of = f"{whose} of {row.speaks}" if row.server == OURS else f"{whose} {row.speaks}"
    client = f"client {row.client}" if row.by == OURS else f"client {row.client} ({row.by})"
    return f"{client} on {of}: {row.outcome}{where}"


def _differences(found: Sequence[Tried], known: Sequence[Tried]) -> tuple[list[str], list[str]]:
    """Return a sentence for each pair that gets on otherwise than it is known to, and one for each build that is new here.

    A genuine build that was never tried makes nothing untrue that is known; a pair of our own that is missing does.

    Raises:
        Misuse: where nothing was tried.
    """
    from ggml_rpc_ref.spec.skew import OURS

    if not found:
        raise Misuse("no pair was tried")
    before = {row.pair: row for row in known}
    hint = "`ggml-rpc-ref skew --write ggml_rpc_ref/spec/skew.json` keeps what was found"
    wrong = [f"{_line(row)}; known is: {_line(before[row.pair])}" for row in found if before.get(row.pair, row) != row]
    untried = [row for row in found if row.pair not in before]
    wrong += [f"{_line(row)}; it was not tried before: {hint}" for row in untried if row.server == row.by == OURS]
    builds = sorted({row.server if row.by == OURS else row.by for row in untried} - {OURS})
    return wrong, [f"{build} was not tried before: {hint}" for build in builds]
