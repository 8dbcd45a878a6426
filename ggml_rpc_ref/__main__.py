"""The door of the command line: what `ggml-rpc-ref` and `python -m ggml_rpc_ref` run."""

from __future__ import annotations

import os

INTERRUPTED = b"ggml-rpc-ref: interrupted\n"


def main() -> None:
    """Run the command line.

    Ctrl-C while its modules are imported, which takes most of a second on a cold disk, ends it as it does later.
    """
    try:
        import signal

        # a shell starts background jobs with SIGINT ignored: that stays
        taken = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if taken:
            signal.signal(signal.SIGINT, _end)
        from ggml_rpc_ref.commands.main import main as run

        if taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        _end()


def _end(*_: object) -> None:
    """End at once: an import or a destructor may swallow an exception, and what could tell of it may be half imported."""
    os.write(2, INTERRUPTED)
    os._exit(130)  # ExitCode.INTERRUPTED


if __name__ == "__main__":
    main()
