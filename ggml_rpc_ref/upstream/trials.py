"""Have a genuine client hold a conversation with a server: a short one, and how it ended; or all that it can do, as a command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from ggml_rpc_ref.spec.messages import MemsetTensor, by_number
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.upstream.builds import Build, find
from ggml_rpc_ref.upstream.process import environment

SCRIPT = Path(__file__).with_name("genuine_trial.py")
WHOLE = Path(__file__).with_name("genuine_client.py")
MISMATCH = "version mismatch"
"""What every genuine client prints where the server's version is not acceptable to it."""


class Ended(NamedTuple):
    """How a trial ended; the words are those of `spec.skew.Tried`."""

    outcome: str
    step: str = ""
    sign: str = ""


def trial(build: Build, endpoint: str, timeout: float = 20.0) -> Ended:
    """Return how a genuine client gets on with a server.

    Args:
        build: the client's.
        endpoint: the server, on this machine.
        timeout: seconds after which the client is killed.
    """
    command = [str(build.python), "-I", str(SCRIPT), str(build.libraries), endpoint]
    # without a backtrace: ggml would run a debugger for it, for seconds
    where = environment() | {"GGML_NO_BACKTRACE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, env=where)
    except subprocess.TimeoutExpired as expired:
        printed = expired.stdout or b""
        return _broken(_last(printed.decode(errors="replace") if isinstance(printed, bytes) else printed), "silence")
    last = _last(done.stdout)
    if last == "works":
        return Ended("works")
    if last == "wrong numbers":
        return Ended("broken", "GRAPH_COMPUTE", last)
    # older ones also print it, as a warning, where they go on
    if last in ("HELLO", "refused") and MISMATCH in done.stderr:
        return Ended("refused", "HELLO")
    # the client's process ends whenever the server closes a connection or answers with another size
    return _broken("HELLO" if last == "refused" else last, "closed")


def client_command(build: Build, endpoints: Sequence[str]) -> list[str]:
    """Return the command that has a build's client do all that it can with a server, or with two.

    It compares what comes back, and ends with 0 where all of it is right; mostly it ends by SIGABRT where a server is wrong.
    """
    # its libraries do not say: they have the function earlier than the message
    sets_bytes = any(row.cls is MemsetTensor for row in by_number(Version.parse(build.protocol)).values())
    # -I: nothing of ours, and nothing that is installed elsewhere, can be imported there
    return [str(build.python), "-I", str(WHOLE), str(build.libraries), "MEMSET_TENSOR" if sets_bytes else "-", *endpoints]


def become_client(name: str, endpoints: Sequence[str]) -> NoReturn:
    """Replace this process by the genuine client at work: exit status and signals are then its own.

    Raises:
        Misuse: where the version is not installed.
    """
    command = client_command(find(name), endpoints)
    os.execve(command[0], command, environment())


def _broken(step: str, sign: str) -> Ended:
    return Ended("closed" if step == "HELLO" else "broken", step, sign)


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line), "")
