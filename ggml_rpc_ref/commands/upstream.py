"""The command group `upstream`: genuine llama.cpp builds, from the package index, by protocol version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggml_rpc_ref.commands.options import LOOPBACK, AsJson, Port
from ggml_rpc_ref.commands.output import print_json
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.transport import DEFAULT_PORT

if TYPE_CHECKING:
    from ggml_rpc_ref.upstream import Instrument

app = typer.Typer(
    help="Genuine llama.cpp builds by protocol version: list, install, serve, command, client, generate.", no_args_is_help=True
)

Sanitize = Annotated[
    bool, typer.Option("--sanitize", help="With AddressSanitizer and UndefinedBehaviorSanitizer, whose reports end it.")
]
Coverage = Annotated[bool, typer.Option("--coverage", help="With counters of edges between basic blocks, for the fuzzer.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="A protocol version, for instance 3.6.1; or a fork: ik.")]


@app.command("list")
def list_builds(as_json: AsJson = False) -> None:
    """List every protocol version, the package that holds it, and whether it is installed."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.spec.versions import builds_of

    rows = [
        {
            "name": row.name,
            "protocol": row.protocol,
            "builds": builds_of(row.protocol),
            "package": None if row.package is None else str(row.package),
            "installed": build is not None,
            "runs_models": build is not None and build.runs_models,
            "instruments": [str(instrument) for instrument in upstream.instrumented(row.name)],
        }
        for row, build in upstream.listing()
    ]
    if as_json:
        print_json({"versions": rows})
        return
    for row in rows:
        state = "with llama" if row["runs_models"] else "installed" if row["installed"] else ""
        spoken = f"speaks {row['protocol']}" if row["name"] != row["protocol"] else f"llama.cpp {row['builds']}"
        state = ", ".join(word for word in (state, *row["instruments"]) if word)  # type: ignore[misc]
        typer.echo(f"{row['name']:<7} {state:<11} {row['package'] or 'no package of the Python index holds it'} ({spoken})")


def _instrument(*, sanitize: bool, coverage: bool) -> Instrument | None:
    """Return the instrument that the options name.

    Raises:
        Misuse: for both.
    """
    from ggml_rpc_ref.upstream import Instrument

    if sanitize and coverage:
        raise Misuse("--sanitize and --coverage are two builds: give one of them")
    return Instrument.SANITIZE if sanitize else Instrument.COVERAGE if coverage else None


@app.command()
def install(
    version: Version,
    llama: Annotated[bool, typer.Option("--llama", help="Build llama.cpp's own library too, which `generate` needs.")] = False,
    sanitize: Sanitize = False,
    coverage: Coverage = False,
) -> None:
    """Build a version into the user's cache directory: 1 to 8 minutes on two cores; needs a C++ compiler."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.commands.progress import shown_progress

    instrument = _instrument(sanitize=sanitize, coverage=coverage)
    with shown_progress(f"llama.cpp {version}{f' with {instrument}' if instrument else ''}") as on_progress:
        build = upstream.install(version, on_progress, llama=llama, instrument=instrument)
    typer.echo(str(build.root))


@app.command()
def model() -> None:
    """Fetch the small real model that `generate` uses by default: Gemma 3 270M, 240 MB, under Gemma's terms of use."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.commands.progress import shown_progress

    with shown_progress("Gemma 3 270M") as on_progress:
        path = upstream.model(on_progress)
    typer.echo(str(path))


@app.command()
def serve(
    version: Version,
    host: Annotated[str, typer.Option("--host", "-H", help="IPv4 address to bind.")] = LOOPBACK,
    port: Port = DEFAULT_PORT,
    threads: Annotated[int | None, typer.Option("--threads", "-t", min=1, help="Threads. (default: half the cores)")] = None,
    devices: Annotated[int, typer.Option(min=1, help="How many times the CPU is served.")] = 1,
    cache_dir: Annotated[Path | None, typer.Option(help="Where large uploads are kept.")] = None,
    sanitize: Sanitize = False,
    coverage: Coverage = False,
) -> None:
    """Run the genuine server in the foreground; this process becomes it."""
    from ggml_rpc_ref import upstream

    instrument = _instrument(sanitize=sanitize, coverage=coverage)
    upstream.serve(version, host=host, port=port, threads=threads, devices=devices, cache_dir=cache_dir, instrument=instrument)


@app.command("command")
def print_command(
    version: Version,
    devices: Annotated[int, typer.Option(min=1, help="How many times the CPU is served.")] = 1,
    cache: Annotated[bool, typer.Option("--cache", help="Keep large uploads in a directory of the run.")] = False,
    coverage: Coverage = False,
) -> None:
    """Print the command that runs the genuine server, with one thread, for --spawn: it starts in a quarter of the time of `serve`.

    For instance: ggml-rpc-ref conform --spawn "$(ggml-rpc-ref upstream command 3.6.1 --devices 2 --cache)"
    """
    import shlex

    from ggml_rpc_ref.upstream.builds import find
    from ggml_rpc_ref.upstream.rpc_server import spawn_command

    build = find(version, _instrument(sanitize=False, coverage=coverage))
    typer.echo(shlex.join(spawn_command(build, devices=devices, cached=cache)))


@app.command()
def client(
    version: Version,
    endpoints: Annotated[list[str], typer.Argument(metavar="HOST:PORT…", help="One server, or two.")],
) -> None:
    """Have the genuine client do all that it can with a server, or with two; this process becomes it, and ends as it ends.

    For instance: ggml-rpc-ref conform-client -- ggml-rpc-ref upstream client 3.6.1 {endpoint} {endpoint2}
    """
    from ggml_rpc_ref import upstream

    upstream.become_client(version, endpoints)


@app.command()
def generate(
    version: Version,
    prompt: Annotated[str, typer.Option(help="The text to continue.")],
    rpc: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="A server; several share the layers. (default: compute here)")
    ] = None,
    model: Annotated[Path | None, typer.Option(metavar="FILE", help="A GGUF file. (default: Gemma 3 270M)")] = None,
    n_predict: Annotated[int, typer.Option("--n-predict", "-n", min=1, help="Tokens to generate.")] = 32,
    top: Annotated[int, typer.Option(min=0, help="How many of the best logits to report for each step, in JSON.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", "-t", min=1, help="The client's own threads.")] = None,
    split: Annotated[str, typer.Option(help="How devices share the model: layer, or tensor.")] = "layer",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: tokens, text, logits, timings.")] = False,
) -> None:
    """Have the genuine client load a model onto servers, all layers, and continue a prompt greedily."""
    from ggml_rpc_ref import upstream

    generation = upstream.generate(
        version, rpc=rpc, prompt=prompt, model=model, n_predict=n_predict, top=top, threads=threads, split=split
    )
    typer.echo(generation.to_json() if as_json else generation.text)
