"""What the command `decode` does: read an input, print what it says, and what is wrong with it.

What could be decoded goes to standard output; one sentence about the first fault to standard error, and then the exit code is 1.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal

from ggml_rpc_ref.commands.output import write_no_more
from ggml_rpc_ref.decode import graphs, json_form, text
from ggml_rpc_ref.decode.decoded import Decoded, Options, decode_file
from ggml_rpc_ref.decode.sources import KINDS
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.versions import PROFILES, Version

OK, BAD_INPUT = 0, 1
"""Exit codes, as in `cli`."""
STYLES: Final = {"offset": "dim", "hex": "cyan", "name": "bold", "value": "green", "doc": "dim"}


def options(kind: str, role: str, proto: str, port: int | None, graph: str, *, full: bool, as_json: bool) -> Options:
    """Return the command line's words as options.

    Raises:
        Misuse: for a word that is none of those possible.
    """
    chosen = next((known for known in KINDS if known == kind), None)
    if kind and chosen is None:
        raise Misuse(f"--as {kind}: it is one of {', '.join(KINDS)}")
    if role not in ("client", "server"):
        raise Misuse(f"--role {role}: it is client or server")
    drawn: Literal["text", "dot"] | None = "text" if graph == "text" else "dot" if graph == "dot" else None
    if graph and drawn is None:
        raise Misuse(f"--graph {graph}: it is text or dot")
    if drawn and as_json:
        raise Misuse("--graph and --json: choose one")
    return Options(chosen, Role(role), _version(proto), port, full, drawn, as_json)


def _version(proto: str) -> Version | None:
    if not proto:
        return None
    try:
        version = Version.parse(proto)
    except ValueError as error:
        raise Misuse(f"--proto: {error}") from None
    if version not in PROFILES:
        raise Misuse(f"--proto {proto}: known are {', '.join(map(str, PROFILES))}")
    return version


def run(file: str, wanted: Options) -> int:
    """Decode a file, or standard input where it is "-"; print, and return the exit code.

    Raises:
        Misuse: where the file can't be read, or the output not be written.
    """
    path = Path(file)
    try:
        if file == "-":
            if sys.stdin is None:
                raise Misuse("can't read -: standard input is closed")
            return _copied(sys.stdin.buffer, wanted)
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe can be read once only
            with path.open("rb") as pipe:
                return _copied(pipe, wanted)
    except OSError as error:
        raise Misuse(f"can't read {file}: {error.strerror}") from None
    return _show(decode_file(path, wanted), wanted)


def _copied(stream: BinaryIO, wanted: Options) -> int:
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.flush()
        return _show(decode_file(Path(copy.name), wanted), wanted)


def _show(decoded: Decoded, wanted: Options) -> int:
    if sys.stdout is None:
        raise Misuse("can't write: standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal's encoding may lack "…"
    try:
        _print(decoded, wanted)
        sys.stdout.flush()
    except BrokenPipeError:
        write_no_more()  # who reads has seen enough, e.g. `head`
    except OSError as error:
        write_no_more()
        raise Misuse(f"can't write: {error.strerror}") from None
    for note in decoded.source.notes:
        print(f"ggml-rpc-ref: {note}", file=sys.stderr)
    faults = decoded.faults
    if not faults:
        return OK
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    print(f"ggml-rpc-ref: {faults[0]}{more}", file=sys.stderr)
    return BAD_INPUT


def _print(decoded: Decoded, wanted: Options) -> None:
    if wanted.as_json:
        sys.stdout.writelines(_document(decoded))
    elif wanted.graph is not None:
        sys.stdout.writelines(f"{line}\n" for line in _graph_lines(decoded, wanted.graph))
    else:
        several = decoded.source.kind in ("recording", "pcap", "vector")
        _print_lines(line for message in decoded.messages for line in text.lines(message, with_connection=several))


def _document(decoded: Decoded) -> Iterator[str]:
    """Yield one JSON document, a message a line: there may be more of them than memory."""
    yield f'{{"schema_version": {json_form.SCHEMA_VERSION}, "kind": "{decoded.source.kind}", "messages": ['
    for number, message in enumerate(decoded.messages):
        yield ("," if number else "") + "\n" + json.dumps(json_form.message_form(message))
    faults = [json_form.fault_form(fault) for fault in decoded.faults]
    yield f'\n], "faults": {json.dumps(faults)}, "notes": {json.dumps(decoded.source.notes)}}}\n'


def _graph_lines(decoded: Decoded, form: Literal["text", "dot"]) -> Iterator[str]:
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


def _print_lines(lines: Iterable[text.Line]) -> None:
    """Print lines; in colours on a terminal, unless NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
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
