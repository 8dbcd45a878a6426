"""Fuzz a client: run its command against a server that tells one lie, once for each lie, and look at how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from ggml_rpc_ref.conformance.clients.program import ended
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz import preload
from ggml_rpc_ref.fuzz.liar import Liar, Lie, all_lies
from ggml_rpc_ref.spec.versions import DEFAULT, Version

_TRACEBACK: Final = re.compile(r"^Traceback \(most recent call last\):", re.MULTILINE)
_INTERNAL: Final = re.compile(r"internal error, please report it: (.*)")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a client ended after a lie.

    Attributes:
        lie: which.
        result: "ended" (with an exit status of its own), "crash", "hang" or "traceback"; "untold" where it never came to the lie.
        how: signal or exit status, with its last words.
        place: where it died, as well as is known.
        seconds: how long it took.
    """

    lie: Lie
    result: str
    how: str
    place: str = ""
    seconds: float = 0.0

    @property
    def is_find(self) -> bool:
        """Whether a client must not end so."""
        return self.result in ("crash", "hang", "traceback")

    @property
    def key(self) -> tuple[str, ...]:
        """Behaviours of the same key are the same: the death's place, else the lie."""
        return (self.result, self.how.partition(";")[0], self.place) if self.place else (self.result, str(self.lie))

    def as_json(self, command: Sequence[str]) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"schema_version": 1, "command": list(command), **asdict(self), "lie": str(self.lie)}


def fuzz_client(
    command: Sequence[str],
    seconds: float,
    *,
    lies: Sequence[Lie] = (),
    seed: int = 0,
    timeout: float = 10.0,
    version: Version = DEFAULT,
) -> Iterator[Behaviour]:
    """Yield how a client behaves, lie by lie, until the time is over.

    Args:
        command: its arguments, one of which holds {endpoint}.
        seconds: how long to go on.
        lies: those to tell; empty: all, the first reply to each command first, then later ones.
        seed: of their order.
        timeout: seconds that the client may take; it hangs if it takes longer.
        version: the protocol version that the server speaks.

    Raises:
        Misuse: for a command without {endpoint}, or one that can't be started.
    """
    if not any("{endpoint}" in part for part in command):
        raise Misuse("the client's command must hold {endpoint}: where it is to connect")
    end, number = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-fuzz-") as directory:
        environ = os.environ | {"GGML_NO_BACKTRACE": "1"} | preload.environment(Path(directory), fork=False)
        for lie in _order(lies, seed, version):
            if time.monotonic() > end:
                return
            number += 1
            yield behaviour(command, lie, environ, timeout, version, number)


def _order(lies: Sequence[Lie], seed: int, version: Version) -> Iterator[Lie]:
    if lies:
        yield from lies
        return
    rng, number = Random(seed), 1
    while True:
        round_ = [Lie(lie.name, lie.command, number) for lie in all_lies(version)]
        rng.shuffle(round_)
        yield from round_
        number += 1


def behaviour(
    command: Sequence[str], lie: Lie, environ: dict[str, str], timeout: float, version: Version = DEFAULT, seed: int = 0
) -> Behaviour:
    """Run a client against one lie.

    Raises:
        Misuse: where it can't be started.
    """
    with Liar(lie, version, seed) as server, tempfile.TemporaryFile() as output:
        line = [part.replace("{endpoint}", server.endpoint) for part in command]
        begun = time.monotonic()
        try:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, start_new_session=True
            )
        except OSError as error:
            raise Misuse(f"can't start {line[0]}: {error.strerror}") from None
        status = ended(process, timeout)
        output.seek(0)
        text = output.read().decode(errors="replace")
        return _judged(lie, status, text, server.told, time.monotonic() - begun)


def _judged(lie: Lie, status: int | None, text: str, told: int, seconds: float) -> Behaviour:
    words = preload.last_words(text)
    tail = f"; {words}" if words else ""
    if status is None:
        return Behaviour(lie, "hang" if told else "untold", f"it did not end{tail}", seconds=seconds)
    if status < 0:
        return Behaviour(lie, "crash", f"{signal.Signals(-status).name}{tail}", preload.place(text), seconds)
    if _TRACEBACK.search(text) or _INTERNAL.search(text):
        return Behaviour(lie, "traceback", words, seconds=seconds)
    return Behaviour(lie, "ended" if told else "untold", f"exit {status}{tail}", seconds=seconds)


def write(directory: Path, found: Behaviour, command: Sequence[str]) -> Path:
    """Write a find; return the file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"client-{re.sub(r'[^a-z0-9]+', '-', str(found.lie).lower())}.json"
    path.write_text(json.dumps(found.as_json(command), indent=1) + "\n", encoding="utf-8")
    return path
