"""The command `gen`: SPEC.md's derived parts, the client's named methods, the kernels' declarations, and the C header."""

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
    module, declared, shared = Path(named_ops.__file__), DIRECTORY / "declared.h", DIRECTORY / "kernels" / "shared"
    numbers, grids = shared / "numbers.h", shared / "grids.h"
    written = {
        spec: (text, derive.rewrite(text)),
        module: (module.read_text(encoding="utf-8"), derive.named_ops()),
        declared: (declared.read_text(encoding="utf-8"), derive.declarations()),
        numbers: (numbers.read_text(encoding="utf-8"), derive.numbers()),
        grids: (grids.read_text(encoding="utf-8"), derive.grids()),
    }
    for path, (old, new) in written.items():
        if check and new != old:
            parts = f": {', '.join(derive.outdated(old))}" if path == spec else ""
            fail(f"{path} is outdated{parts}; `ggml-rpc-ref gen` rewrites it", ExitCode.NON_CONFORMANT)
        if not check and new != old:
            path.write_text(new, encoding="utf-8")
