"""The command `gen`: SPEC.md's derived parts, the client's named methods, the kernels' declarations, the C header,
and the copies of vectors/' schemas and observations that the package carries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggml_rpc_ref.commands.exit_codes import ExitCode
from ggml_rpc_ref.commands.output import fail
from ggml_rpc_ref.errors import Misuse


def gen(
    spec: Annotated[Path, typer.Argument(metavar="[SPEC.md]", help="The text whose derived parts are meant.")] = Path("SPEC.md"),
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit with 1 where text and tables disagree.")] = False,
    header: Annotated[bool, typer.Option("--header", help="Print a C header with the protocol's records and numbers.")] = False,
) -> None:
    """Write what the tables say into SPEC.md's derived parts and the files that are derived, or compare."""
    from ggml_rpc_ref import derive
    from ggml_rpc_ref.backends.native import DIRECTORY
    from ggml_rpc_ref.client import named_ops

    if header:
        typer.echo(derive.header(), nl=False)
        return
    if not spec.is_file():
        raise Misuse(f"{spec} is not a file; run this where SPEC.md lies, or name it")
    try:
        text = spec.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Misuse(f"{spec} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    # first: what builds were observed to do is part of the text
    if (vectors := spec.parent / "vectors").is_dir():
        _carry(vectors, check)
    shared = DIRECTORY / "kernels" / "shared"
    derived = {
        spec: derive.rewrite(text),
        Path(named_ops.__file__): derive.named_ops(),
        DIRECTORY / "declared.h": derive.declarations(),
        shared / "numbers.h": derive.numbers(),
        shared / "grids.h": derive.grids(),
    }
    for path, content in derived.items():
        _settle(path, content, check, f": {', '.join(derive.outdated(text))}" if path == spec else "")


def _carry(vectors: Path, check: bool) -> None:
    """Bring the copies of what lies in vectors/ up to date, or compare."""
    from ggml_rpc_ref import derive

    package = Path(derive.__file__).parents[1]
    copies = derive.carried(vectors)
    for place, content in copies.items():
        _settle(package / place, content, check)
    for path in derive.superfluous(package, copies):
        if check:
            fail(f"{path} is a copy of nothing in {vectors}; `ggml-rpc-ref gen` removes it", ExitCode.NON_CONFORMANT)
        path.unlink()


def _settle(path: Path, content: str, check: bool, parts: str = "") -> None:
    """Write a file unless it holds that content already; with `check`, fail instead."""
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return
    if check:
        fail(f"{path} is outdated{parts}; `ggml-rpc-ref gen` rewrites it", ExitCode.NON_CONFORMANT)
    path.write_text(content, encoding="utf-8")
