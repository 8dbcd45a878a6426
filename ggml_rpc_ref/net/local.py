"""A text that a process offers to its own user on the same machine: a Unix socket in a directory that only this user can enter.

Whoever connects gets the text as it is at that moment and the end of the connection; nothing is read. Every process has a socket of
its own, named by what it is and its pid.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""Seconds that a reader or a text may take."""


def runtime_directory() -> Path:
    """Return the directory of this user's sockets, made if it isn't there: below XDG_RUNTIME_DIR, or else in the temporary one.

    Raises:
        OSError: where it can't be made, or somebody else could enter or has made it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "ggml-rpc-ref" if base else Path(tempfile.gettempdir()) / f"ggml-rpc-ref-{os.getuid()}"
    path.mkdir(mode=0o700, parents=bool(base), exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(0, "it is not a directory for this user alone", str(path))
    return path


@contextlib.contextmanager
def offered(name: str, text: Callable[[], str]) -> Iterator[Path]:
    """Offer a text to this user's processes while the block runs, in a thread of its own.

    Args:
        name: what this process is, for instance "serve".
        text: makes the text when somebody asks.

    Raises:
        OSError: where there can be no such socket.
    """
    path = runtime_directory() / f"{name}-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path.unlink(missing_ok=True)  # of a dead process that had our pid
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_answer_all, args=(listener, text), name="status", daemon=True).start()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread


def _answer_all(listener: socket.socket, text: Callable[[], str]) -> None:
    while True:
        try:
            asking, _ = listener.accept()
        except OSError:
            return
        with asking, contextlib.suppress(OSError):
            asking.settimeout(PATIENCE)
            asking.sendall(text().encode())


def asked(name: str) -> Iterator[str]:
    """Yield the text that each process of this name offers now; the sockets of processes that are gone are removed.

    Raises:
        OSError: as `runtime_directory`.
    """
    for path in sorted(runtime_directory().glob(f"{name}-*.sock")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, contextlib.suppress(OSError):
            asking.settimeout(PATIENCE)
            try:
                asking.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                continue
            with asking.makefile("rb") as file:
                yield file.read().decode()
