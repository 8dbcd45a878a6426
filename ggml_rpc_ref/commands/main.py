"""The command line: one thin function per command; what it does lives in the module that it calls.

Words go to stderr, results to stdout. Exit codes: 0 ok, 1 non-conformant (or bad input of decode and vectors), 2 usage,
3 unreachable or unknown version, 4 the server under test crashed or hung, 5 our own fault, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands import upstream as cli_upstream
from ggml_rpc_ref.commands import vectors as cli_vectors
from ggml_rpc_ref.commands.options import AsJson, Expect, Judged, Listing, Owned, Spawn
from ggml_rpc_ref.commands.output import write_no_more
from ggml_rpc_ref.errors import Damaged, Misuse, Unsupported, Violation

OK, NON_CONFORMANT, USAGE, UNREACHABLE, CRASHED, OUR_FAULT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

app = typer.Typer(
    name="ggml-rpc-ref",
    help="The reference for ggml's RPC protocol: serve it, probe it, judge a server's conformance.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ggml-rpc-ref {package_version('ggml-rpc-ref')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take options that come before the command."""


@app.command()
def serve(
    host: Annotated[str, typer.Option("--host", "-H", help="Address or host name to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0: any free one.")] = 50052,
    cache: Annotated[bool, typer.Option("--cache", "-c", help="Keep large uploads on disk, where rpc-server -c has them.")] = False,
    threads: Annotated[int, typer.Option("--threads", "-t", min=0, help="Threads of numpy's BLAS; 0: half the cores.")] = 0,
    device: Annotated[str, typer.Option("--device", "-d", help="Devices, separated by commas: oracle, upstream-cpu.")] = "oracle",
    memory: Annotated[
        str,
        typer.Option(
            "--mem",
            "-m",
            help="Memory of each device: MiB, or with suffix K, M, G, T. (default: the machine's)",
            show_default=False,
        ),
    ] = "",
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Accept peers of this network only; may be repeated.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where large uploads are kept; implies --cache.")] = None,
    cache_limit: Annotated[str, typer.Option(metavar="SIZE", help="How much is kept there.")] = "32G",
    values_cache: Annotated[str, typer.Option(metavar="SIZE", help="Memory for float copies of quantised weights.")] = "2G",
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = 256,
    idle_timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="End connections that are silent for so long. (default: never)")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    as_json: Annotated[bool, typer.Option("--json", help="Log to stdout, one JSON object a line.")] = False,
) -> None:
    """Serve ggml RPC until Ctrl-C or SIGTERM, which end it with exit code 0."""
    count = str(threads or max(1, (os.cpu_count() or 2) // 2))
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if threads or name not in os.environ:
            os.environ[name] = count  # read once, when numpy is imported
    from ggml_rpc_ref.commands import serve as serving
    from ggml_rpc_ref.server.server import Limits, Server

    serving.start_log(log_level, as_json=as_json)
    served = serving.make_host(
        device,
        memory=serving.parse_size(memory) if memory else None,
        cache_dir=serving.cache_directory(cache, cache_dir),
        cache_limit=serving.parse_size(cache_limit),
        values=serving.parse_size(values_cache),
    )
    networks = [serving.parse_network(text) for text in allow or ()]
    limits = Limits(connections=max_connections, idle=idle_timeout)
    serving.run(Server(served, host, port, allow=networks, limits=limits), as_json=as_json)


@app.command()
def conform(
    target: Judged = "",
    spawn: Spawn = "",
    only: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only cases or rules of this id (with *, ?); may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long one answer may take.")] = 5.0,
    expect: Expect = None,
    i_own_this_target: Owned = False,
    list_cases: Listing = False,
    as_json: AsJson = False,
) -> None:
    """Judge a server by every rule of the protocol; 0: conformant, 1: not, 4: it crashed or hung."""
    from ggml_rpc_ref.commands import conform as command
    from ggml_rpc_ref.conformance import select

    server, cases = command.choose(target, spawn), select(tuple(only or ()))
    wishes = command.Wishes(timeout, expect, i_own_this_target, as_json)
    raise typer.Exit(command.list_cases(cases, wishes) if list_cases else command.conform(server, cases, wishes))


@app.command()
def show(name: Annotated[str, typer.Argument(metavar="RULE-OR-CASE", help="For instance data.in-tensor.")]) -> None:
    """Explain a rule or a case: its sentence, what our server does, what the genuine one does, and the cases."""
    from ggml_rpc_ref import conformance

    for line in conformance.show(name):
        typer.echo(line)


@app.command()
def probe(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", help="A server; [::1]:50052 for IPv6; port 50052 if left out.")],
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long all of it may take.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Ask a server for its version, devices, memory, alignment and largest buffer; changes nothing on it."""
    from ggml_rpc_ref.commands import probe as probing

    raise typer.Exit(probing.run(target, timeout, as_json=as_json))


@app.command()
def proxy(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0: any free one.")],
    upstream: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server.")],
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every byte to this file, for decode.")] = None,
    leave_out: Annotated[
        str, typer.Option(metavar="SIZE", help="With --record: of data over this size keep length and hash. (default: keep all)")
    ] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Print one line for each message.")] = False,
    delay: Annotated[
        list[str] | None, typer.Option(metavar="CMD=MS", help="Hold these requests back so long; may be repeated.")
    ] = None,
) -> None:
    """Forward between clients and a server, and say or record what passes; changes no byte. Ends with Ctrl-C."""
    from ggml_rpc_ref.commands import proxy as proxying

    proxying.run(listen, upstream, record, leave_out, explain=explain, delays=delay or [])


@app.command()
def gen(
    spec: Annotated[Path, typer.Argument(metavar="[SPEC.md]", help="The text whose derived parts are meant.")] = Path("SPEC.md"),
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 1 where text and tables disagree.")] = False,
    header: Annotated[bool, typer.Option("--header", help="Print a C header with the protocol's records and numbers.")] = False,
) -> None:
    """Write what the tables say into SPEC.md's derived parts, or compare."""
    from ggml_rpc_ref import derive

    if header:
        typer.echo(derive.header(), nl=False)
        return
    if not spec.is_file():
        raise Misuse(f"{spec} is no file; run this where SPEC.md lies, or name it")
    text = spec.read_text(encoding="utf-8")
    derived = derive.rewrite(text)
    if check and derived != text:
        _fail(f"{spec} is outdated: {', '.join(derive.outdated(text))}; `ggml-rpc-ref gen` rewrites it", NON_CONFORMANT)
    if not check and derived != text:
        spec.write_text(derived, encoding="utf-8")


@app.command()
def decode(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Raw bytes, hex text, a recording, pcap or vector; -: stdin.")],
    kind: Annotated[
        str, typer.Option("--as", metavar="KIND", help="raw, hex, recording, pcap, vector. (default: by its bytes)")
    ] = "",
    role: Annotated[str, typer.Option(metavar="client|server", help="Who sent raw bytes or hex text.")] = "client",
    proto: Annotated[str, typer.Option(metavar="VERSION", help="Protocol. (default: what the server announces, or 3.6.1)")] = "",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="pcap: the server's port.")] = None,
    graph: Annotated[str, typer.Option(metavar="text|dot", help="List or draw the graphs instead.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Show every field of every tensor.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain bytes of the protocol, field by field; 1: they break off or break a rule."""
    from ggml_rpc_ref.commands import decode as command

    wanted = command.options(kind, role, proto, port, graph, full=full, as_json=as_json)
    raise typer.Exit(command.run(file, wanted))


app.add_typer(cli_upstream.app, name="upstream")
app.add_typer(cli_vectors.app, name="vectors")


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and a documented exit code, never a traceback."""
    try:
        _run()
    except Damaged as error:
        _fail(str(error), NON_CONFORMANT)
    except (Misuse, Unsupported) as error:
        _fail(str(error), USAGE)
    except Violation as error:
        _fail(f"the peer broke the protocol: {error}", UNREACHABLE)
    except BrokenPipeError:
        write_no_more()  # who reads has seen enough, e.g. `head`
    except (ConnectionError, TimeoutError) as error:
        _fail(str(error), UNREACHABLE)
    except OSError as error:
        write_no_more()
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", USAGE)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except Exception as error:
        _fail(f"internal error, please report it: {type(error).__name__}: {error}", OUR_FAULT)


def _run() -> None:
    try:
        app(standalone_mode=True)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where an error has a sentence, and not at the interpreter's end


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"ggml-rpc-ref: {sentence}", err=True)
    sys.exit(code)
