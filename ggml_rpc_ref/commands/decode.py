"""The command `decode`: explain an input, and say what is wrong with it.

What could be decoded goes to standard output; one sentence about the first fault to standard error, and then the exit code is 1.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import AsJson
from ggml_rpc_ref.commands.output import discard_output, is_closed, is_coloured, print_error
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.versions import DEFAULT

if TYPE_CHECKING:
    from ggml_rpc_ref.decode.decoded import Decoded, Options
    from ggml_rpc_ref.decode.text import Line

STYLES: Final = {"offset": "dim", "hex": "cyan", "name": "bold", "value": "green", "doc": "dim"}


def decode(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Raw bytes, hex text, a recording, pcap or vector; -: stdin.")],
    kind: Annotated[
        str, typer.Option("--as", metavar="KIND", help="raw, hex, recording, pcap, vector. (default: by its bytes)")
    ] = "",
    role: Annotated[str, typer.Option(metavar="client|server", help="Who sent raw bytes or hex text.")] = "client",
    proto: Annotated[str, typer.Option(metavar="VERSION", help=f"Protocol. (default: what the server says, or {DEFAULT})")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="pcap: the server's port.")] = None,
    graph: Annotated[str, typer.Option(metavar="text|dot", help="List or draw the graphs instead.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Show every field of every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain bytes of the protocol, field by field; 1: they break off or break a rule."""
    raise typer.Exit(run(file, options(kind, role, proto, port, graph, full=full, as_json=as_json)))


def options(kind: str, role: str, proto: str, port: int | None, graph: str, *, full: bool, as_json: bool) -> Options:
    """Return the command line's words as options.

    Raises:
        Misuse: for a word that is not among those possible.
    """
    from ggml_rpc_ref.commands.parsing import parse_version
    from ggml_rpc_ref.decode.decoded import Options
    from ggml_rpc_ref.decode.sources import KINDS
    from ggml_rpc_ref.protocol.connection import Role

    chosen = next((known for known in KINDS if known == kind), None)
    if kind and chosen is None:
        raise Misuse(f"--as {kind}: it is one of {', '.join(KINDS)}")
    if role not in ("client", "server"):
        raise Misuse(f"--role {role}: it is client or server")
    form: Literal["text", "dot"] | None = "text" if graph == "text" else "dot" if graph == "dot" else None
    if graph and form is None:
        raise Misuse(f"--graph {graph}: it is text or dot")
    if form and as_json:
        raise Misuse("--graph and --json: choose one")
    return Options(chosen, Role(role), parse_version(proto) if proto else None, port, full, form, as_json)


def run(file: str, options: Options) -> ExitCode:
    """Decode a file, or standard input for "-"; print it, and return the exit code.

    Raises:
        Misuse: where the file can't be read or the output can't be written.
    """
    from ggml_rpc_ref.decode.decoded import decode_file

    path = Path(file)
    try:
        if file == "-":
            if sys.stdin is None:
                raise Misuse("can't read -: standard input is closed")
            return _copied(sys.stdin.buffer, "standard input", options)
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe can be read only once
            with path.open("rb") as pipe:
                return _copied(pipe, file, options)
    except OSError as error:
        raise Misuse(f"can't read {file}: {error.strerror}") from None
    return _show(decode_file(path, options), options)


def _copied(stream: BinaryIO, name: str, options: Options) -> ExitCode:
    from ggml_rpc_ref.decode.decoded import decode_file
    from ggml_rpc_ref.decode.scratch import copied

    with copied(stream, name) as copy:
        return _show(decode_file(copy, options), options)


def _show(decoded: Decoded, options: Options) -> ExitCode:
    if is_closed():
        raise Misuse("can't write: standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack "…"
    try:
        _print(decoded, options)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()  # the reader has seen enough, for instance `head`
    except OSError as error:
        discard_output()
        raise Misuse(f"can't write: {error.strerror}") from None
    for note in decoded.source.notes:
        print_error(note)
    faults = decoded.faults
    if not faults:
        return ExitCode.OK
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    print_error(f"{faults[0]}{more}")
    return ExitCode.NON_CONFORMANT


def _print(decoded: Decoded, options: Options) -> None:
    from ggml_rpc_ref.decode import text

    if options.as_json:
        sys.stdout.writelines(_document(decoded))
    elif options.graph is not None:
        sys.stdout.writelines(f"{line}\n" for line in _graph_lines(decoded, options.graph))
    else:
        several = decoded.source.kind in ("recording", "pcap", "vector")
        _print_lines(line for message in decoded.messages for line in text.lines(message, with_connection=several))


def _document(decoded: Decoded) -> Iterator[str]:
    """Yield one JSON document, a message a line, as it is decoded: all messages together may not fit into memory."""
    from ggml_rpc_ref.decode import json_form

    yield f'{{"schema_version": {json_form.SCHEMA_VERSION}, "kind": "{decoded.source.kind}", "messages": ['
    for number, message in enumerate(decoded.messages):
        yield ("," if number else "") + "\n" + json.dumps(json_form.message_form(message))
    faults = [json_form.fault_form(fault) for fault in decoded.faults]
    yield f'\n], "faults": {json.dumps(faults)}, "notes": {json.dumps(decoded.source.notes)}}}\n'


def _graph_lines(decoded: Decoded, form: Literal["text", "dot"]) -> Iterator[str]:
    from ggml_rpc_ref.decode import graphs

    found = (message for message in decoded.messages if graphs.is_whole(message))
    views = (
        (f"graph {number}, connection {message.connection}, offset {message.offset}", graphs.View.of(message))
        for number, message in enumerate(found)
    )
    if form == "dot":
        yield from graphs.as_dot(views)
        return
    for title, view in views:
        yield from graphs.as_text(view, title)


def _print_lines(lines: Iterable[Line]) -> None:
    """Print lines, in colours where standard output takes them."""
    if not is_coloured():
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        shown = Text(str(line), "bold yellow" if not line.offset else "")
        if line.offset:
            at = 2
            for cell, width in zip(line._fields, (10, 27, 18, 26, len(line.doc)), strict=True):
                shown.stylize(STYLES[cell], at, at + max(width, len(getattr(line, cell))))
                at += max(width, len(getattr(line, cell)) + 2)
        console.print(shown)
