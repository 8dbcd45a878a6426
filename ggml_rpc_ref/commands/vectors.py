"""The command group `vectors`: list, verify, play the golden vectors, and record new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.options import LONGEST_TIMEOUT, As, AsJson, Expect, Judged, Listing, Owned, Profile, Spawn
from ggml_rpc_ref.commands.output import print_error
from ggml_rpc_ref.errors import Misuse

app = typer.Typer(help="The golden vectors: list, verify, record and play them.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(metavar="[DIRECTORY]", help="Where they lie.")]


@app.command("list")
def list_vectors(directory: Directory = Path("vectors")) -> None:
    """Print file and id of every vector."""
    from ggml_rpc_ref import golden

    for line in golden.list_ids(directory):
        typer.echo(line)


@app.command()
def verify(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIRECTORY|FILE]", help="Where they lie; or finds of `fuzz`, or one file.")
    ] = Path("vectors"),
) -> None:
    """Check schemas, ids and form of every vector; 0: all is well, 1: not."""
    from ggml_rpc_ref import golden

    faults = golden.verify(directory)
    for fault in faults:
        print_error(fault)
    typer.echo(f"{len(faults)} faults in {len(list(golden.files(directory)))} files", err=True)
    raise typer.Exit(ExitCode.NON_CONFORMANT if faults else ExitCode.OK)


@app.command()
def play(
    target: Judged = "",
    spawn: Spawn = "",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only vectors of this id or rule (sessions, ops/ADD, with *, ?); may be repeated."),
    ] = None,
    directory: Annotated[Path, typer.Option(help="Where the vectors lie, or one file.")] = Path("vectors"),
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A GGUF, or other data that vectors omit. (default: the model, if it is installed)"),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long one answer may take; a session's 12 times."),
    ] = 5,
    profile: Profile = "full",
    expect: Expect = None,
    i_own_this_target: Owned = False,
    list_cases: Listing = False,
    own: As = "",
    as_json: AsJson = False,
) -> None:
    """Play the vectors against a server; 0: it does as they say, 1: not, 4: it crashed or hung."""
    from ggml_rpc_ref import upstream
    from ggml_rpc_ref.commands.conform import JudgingOptions, choose_target, judge_and_report, print_cases
    from ggml_rpc_ref.commands.parsing import parse_own
    from ggml_rpc_ref.conformance import check_profile
    from ggml_rpc_ref.golden import omitted, play_ops
    from ggml_rpc_ref.golden import play as playing

    check_profile(profile)
    model = upstream.model_path()
    given = omitted.Files(data or (), otherwise=[model] if model.exists() else [])
    found = list(playing.cases(directory, given))
    version = parse_own(own)
    server, cases = choose_target(target, spawn, version), playing.select(found, tuple(only or ()))
    if list_cases:
        raise typer.Exit(print_cases(cases, as_json=as_json))
    options = JudgingOptions(timeout, expect, i_own_this_target, as_json, profile, own=version)
    raise typer.Exit(judge_and_report(server, cases, options, {case.id for case in found}, play_ops.summary))


@app.command()
def record(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="What `proxy --record` wrote.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write. (default: standard output)")] = None,
    id: Annotated[str, typer.Option(metavar="ID", help="Its permanent name. (default: the recording's)")] = "",
    about: Annotated[str, typer.Option(metavar="TEXT", help="What the conversation shows.")] = "",
    client: Annotated[str, typer.Option(metavar="TEXT", help="Program and library that asked.")] = "not told",
    server: Annotated[
        str, typer.Option(metavar="TEXT", help="Program, library and options that answered. (default: its endpoint)")
    ] = "",
    cpu: Annotated[str, typer.Option(metavar="TEXT", help="The server's processor.")] = "not told",
    command: Annotated[str, typer.Option(metavar="TEXT", help="What records it again.")] = "not told",
    nmse: Annotated[float, typer.Option(min=0, help="How far computed numbers may lie from the recorded ones.")] = 5e-4,
    flag: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A flag beside those that follow; repeatable.")] = None,
) -> None:
    """Make a session vector of a recording: its pointers become names; 0: all of it, 1: what is whole of a damaged one."""
    from ggml_rpc_ref.golden import session

    labels = session.Labels(id, about, client, server, cpu, command, tuple(flag or ()), nmse)
    made = session.make(recording, labels)
    # of a recording that is damaged at its beginning there is nothing to write
    if made.content["steps"] and output is not None:
        try:
            output.write_text(made.text, encoding="utf-8")
        except OSError as error:
            raise Misuse(f"can't write {output}: {error.strerror}") from None
    elif made.content["steps"]:
        typer.echo(made.text, nl=False)
    for sentence in (*made.notes, *made.faults[:1]):
        print_error(sentence)
    raise typer.Exit(ExitCode.NON_CONFORMANT if made.faults else ExitCode.OK)
