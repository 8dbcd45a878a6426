"""The door of the command line: what `ggml-rpc-ref` and `python -m ggml_rpc_ref` run."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line.

    Ctrl-C while its modules are imported, which takes most of a second on a cold disk, ends it as later: with a sentence and code.
    """
    try:
        from ggml_rpc_ref.commands.main import main as run
    except KeyboardInterrupt:
        print("ggml-rpc-ref: interrupted", file=sys.stderr)
        sys.exit(130)  # ExitCode.INTERRUPTED: the module that has it may be the one whose import was interrupted
    run()


if __name__ == "__main__":
    main()
