"""The command `devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, AsJson
from ggml_rpc_ref.commands.output import print_error, print_json

if TYPE_CHECKING:
    from ggml_rpc_ref.client.probe import Report

HEADINGS = ("device", "server", "protocol", "free MiB", "total MiB", "supports")


def devices(
    servers: Annotated[list[str], typer.Argument(metavar="HOST:PORT…", help="Servers, up to 16.", show_default=False)],
    timeout: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long each server may take.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """List the devices of several servers, numbered as llama.cpp numbers them: memory, version, what that version supports."""
    from ggml_rpc_ref.client import probe
    from ggml_rpc_ref.commands.parsing import distinct_endpoints

    reports = [probe.probe(server, timeout) for server in distinct_endpoints(servers)]
    rows = [row for report in reports for row in _rows(report)]
    for number, row in enumerate(rows):
        row["device"] = f"RPC{number}"
    errors = [report.error for report in reports if report.error is not None]
    if as_json:
        print_json({"devices": rows, "errors": errors})
    elif rows:
        print(_table(rows))
    for error in errors:
        print_error(error)
    if errors:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _rows(report: Report) -> list[dict[str, str | int]]:
    from ggml_rpc_ref.ops import canonical_ops
    from ggml_rpc_ref.spec.dtypes import types
    from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS
    from ggml_rpc_ref.spec.versions import PROFILES, Version

    known = report.protocol is not None and Version.parse(report.protocol) in PROFILES
    version = Version.parse(report.protocol) if report.protocol is not None and known else None
    supports = "unknown" if version is None else f"{len(set(canonical_ops(version)) - CUSTOM_OPS)} ops, {len(types(version))} types"
    return [
        {
            "device": "",
            "server": f"{report.endpoint}, device {row.index}",
            "protocol": report.protocol or "",
            "free": row.free,
            "total": row.total,
            "supports": supports,
        }
        for row in report.devices
    ]


def _table(rows: list[dict[str, str | int]]) -> str:
    """Return plain lines, the same on a terminal as in a file."""
    columns = ("device", "server", "protocol", "free", "total", "supports")
    cells = [[str(v // 2**20) if isinstance(v := row[column], int) else v for column in columns] for row in rows]
    widths = [max(len(line[at]) for line in (HEADINGS, *cells)) for at in range(len(HEADINGS))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (HEADINGS, *cells))
