"""The exit codes of all commands, as the README documents them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    NON_CONFORMANT = 1
    """The server breaks a MUST; or the input of `decode`, `vectors` or `gen --check` has faults."""
    USAGE = 2
    """The command line is wrong, or a file or the output can't be used."""
    UNREACHABLE = 3
    """The server can't be reached, does not speak the protocol, or speaks a version that is not judged."""
    CRASHED = 4
    """The server under test crashed or hung."""
    OUR_FAULT = 5
    """A defect of this program."""
    INTERRUPTED = 130
    """SIGINT, SIGTERM or SIGHUP; 128 + SIGINT, as shells have it."""
    READER_LEFT = 141
    """Whoever read standard output has left before all was said, `head` for instance; 128 + SIGPIPE. It is no verdict."""
