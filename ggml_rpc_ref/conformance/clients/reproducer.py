"""Reproducers of what a client does wrong: the replies that it got, as a file that `replay` plays and as a server of a few lines.

    made = reproducer.make(record, id="frame.lengths/…", about="…", verdict="FAIL")   # record: that of a `Run`
    print(made.text())
    print(reproducer.as_python(made))
    outcome = reproducer.replay(made, program, timeout=20.0)

What a client does about a reply can be seen so: which requests it makes then, and how it ends. What its requests hold can't; there
the server helps to look at the client at leisure, and `conform-client --only ID` judges it again.

A server that plays one knows nothing of the protocol but where a message ends: to each request it sends what was sent to the one of
the same place. Handles and addresses in replies are those that were recorded, which no client may look into.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from ggml_rpc_ref.conformance.clients.heard import Ended
from ggml_rpc_ref.conformance.clients.program import Program
from ggml_rpc_ref.conformance.clients.script import End
from ggml_rpc_ref.conformance.peer import TranscriptPiece
from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Misuse
from ggml_rpc_ref.net.channel import Channel, Waited
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import REQUESTS

FORM: Final = "ggml-rpc-ref reproducer of a client"
"""What a file says of itself."""
MOST: Final = 2**22
"""Bytes of replies above which no reproducer is made: it would be a file of megabytes."""
LOOPBACK: Final = "127.0.0.1"
SECOND: Final = "connection to the second server"
"""What a record says of a connection that does not come to the first server."""
CUT: Final = "the first of "
"""How a record begins what it says of a reply that it does not have as a whole."""

ENDED: Final = "the client ended "
"""How a record begins what it says at its end, of no connection: how the client's process ended."""
REFUSED: Final = "a message that breaks "
"""How a record begins what it says of a message that was refused before it was taken."""
HEAD: Final = codec.REQUEST_HEAD.size
"""Bytes before a message: its command and its length."""
CHUNK: Final = 2**16
TICK: Final = 0.1
"""Seconds after which a wait looks whether the run is over."""
NAMES: Final = {row.number: row.name for row in REQUESTS.values()}

Step = tuple[str, str]
"""("request", its words), ("reply", bytes in hex) or ("close", "FIN" or "RST")."""


@dataclass(frozen=True, slots=True)
class Line:
    """A connection: which server it came to, from 0, and what happened on it."""

    endpoint: int
    steps: tuple[Step, ...]

    @property
    def requests(self) -> list[str]:
        """The requests that came."""
        return [words for act, words in self.steps if act == "request"]


@dataclass(frozen=True, slots=True)
class Reproducer:
    """A conversation in which a client showed a fault.

    Attributes:
        id: the case's.
        about: what is played, what the client must do and what it did.
        verdict: of the case.
        ended: how the client ended, as `outcome_of` says it; "": nobody saw it, or what its requests hold is the matter.
        lines: the connections, in the order in which they came.
    """

    id: str
    about: str
    verdict: str
    ended: str
    lines: tuple[Line, ...]

    @property
    def endpoints(self) -> int:
        """How many servers it takes."""
        return max((line.endpoint for line in self.lines), default=0) + 1

    def text(self) -> str:
        """Return the text of a file."""
        lines = [{"endpoint": line.endpoint, "steps": [{act: words} for act, words in line.steps]} for line in self.lines]
        head = {"form": FORM, "id": self.id, "about": self.about, "verdict": self.verdict, "ended": self.ended}
        return json.dumps(head | {"connections": lines}, indent=1) + "\n"


def outcome_of(ended: Ended) -> str:
    """Return how a client ended, without what differs from run to run; "" where nobody saw it."""
    if ended.hung:
        return "not in time"
    if ended.status is None:
        return ""
    return "by a signal" if ended.status < 0 else "well" if ended.status == 0 else "with an error"


def make(record: Iterable[TranscriptPiece], id: str, about: str, verdict: str) -> Reproducer:
    """Return the reproducer of a run.

    Raises:
        Misuse: where it would be too large.
    """
    steps, second, ended = dict[int, list[Step]](), set[int](), ""
    for number, verb, what, data in record:
        if not number:
            ended = what.removeprefix(ENDED)
            continue
        mine = steps.setdefault(number, [])
        if what.startswith(CUT):
            raise Misuse(f"{id}: a reply is too large for a reproducer ({what})")
        if what == SECOND:
            second.add(number)
        elif verb == "got" and what != "end":
            mine.append(("request", what))
        elif verb == "sent" and data:
            mine.append(("reply", data.hex()))
        elif verb == "sent":
            mine.append(("close", "RST" if what == End.RESET.value else "FIN"))
    if sum(len(words) // 2 for mine in steps.values() for act, words in mine if act == "reply") > MOST:
        raise Misuse(f"{id}: the replies are too large for a reproducer, more than {MOST >> 20} MiB")
    lines = tuple(Line(int(number in second), tuple(mine)) for number, mine in sorted(steps.items()))
    return Reproducer(id, about, verdict, ended, lines)


def parse(text: str) -> Reproducer:
    """Return the reproducer in a file's text.

    Raises:
        Misuse: for another file.
    """
    try:
        content = json.loads(text)
        if content["form"] != FORM:
            raise ValueError
        lines = tuple(Line(int(row["endpoint"]), tuple(map(_step, row["steps"]))) for row in content["connections"])
        return Reproducer(str(content["id"]), str(content["about"]), str(content["verdict"]), str(content["ended"]), lines)
    except NOT_OF_ITS_FORM:
        raise Misuse("it is not a reproducer (`conform-client --reproduce DIRECTORY` writes them)") from None


def _step(row: dict[str, Any]) -> Step:
    ((act, words),) = row.items()
    if act not in ("request", "reply", "close"):
        raise ValueError
    if act == "reply":
        bytes.fromhex(words)
    return act, str(words)


# ---------------------------------------------------------------------------------------------------------------- script

SCRIPT = '''\
#!/usr/bin/env python3
"""{about}

python3 {name} PORT [PORT]        needs Python only; then start the client once, with 127.0.0.1:PORT
"""
import socket, struct, sys, threading

LINES = [
{lines}]
if len(sys.argv) < 2 + max(server for server, _ in LINES) or not all(map(str.isdigit, sys.argv[1:])):
    sys.exit(__doc__.strip())
servers = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]


def serve(number, peer, steps):
    with peer, peer.makefile("rb") as file:
        for act, what in [*steps, ("request", "more than was recorded")] if steps[-1:] != [("close", "RST")] else steps:
            if act == "request":
                head = file.read(9)
                body = file.read(min(struct.unpack("<Q", head[1:])[0], 2**28)) if len(head) == 9 else b""
                said = f"command {{head[0]}}, {{len(body)}} bytes" if head else "the end"
                print(f"{{number}} got {{said}} - recorded: {{what}}\\n", end="", flush=True)  # at once: others print too
            elif act == "reply":
                peer.sendall(bytes.fromhex(what))
            elif what == "FIN":
                peer.shutdown(socket.SHUT_WR)
            else:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


print({recorded!r}, flush=True)
for number, (server, steps) in enumerate(LINES, 1):
    threading.Thread(target=serve, args=(number, servers[server].accept()[0], steps)).start()
'''


def as_python(made: Reproducer, name: str = "reproduce.py") -> str:
    """Return a server that sends the same replies, with nothing but Python's standard library, and says what came."""
    about = re.sub(r'["\\]', "'", made.about)
    lines = "".join(map(_as_literal, made.lines))
    return SCRIPT.format(about=about, name=name, lines=lines, recorded=f"recorded: {made.about}")


def _as_literal(line: Line) -> str:
    steps = "".join(f"        {step!r},\n" for step in line.steps)
    return f"    ({line.endpoint}, [\n{steps}    ]),\n"


# ---------------------------------------------------------------------------------------------------------------- replay


@dataclass(slots=True)
class Outcome:
    """What a client did when a reproducer was played to it.

    Attributes:
        lines: what came on each connection, and how the client ended.
        is_same: whether it did as was recorded: the fault is still there.
    """

    lines: list[str] = field(default_factory=list)
    is_same: bool = False


def replay(made: Reproducer, program: Program, timeout: float) -> Outcome:
    """Play a reproducer to a client, which is run once.

    Raises:
        Misuse: where the client can't be started, or is told of too few servers; where it could not be told whether it is the same.
    """
    if not made.ended:
        raise Misuse(f"what the requests hold is the matter, or nobody saw how it ended: conform-client --only {made.id} judges it")
    if program.endpoints < made.endpoints:
        raise Misuse("the client is told of one server, and this takes two: its command must hold {endpoint2} as well")
    with ExitStack() as stack:
        servers = [_Server(made, number) for number in range(program.endpoints)]
        for server in servers:
            stack.enter_context(server)
        ended = program.run(
            [s.endpoint for s in servers], timeout, lambda: sum(s.connections for s in servers) if _came(servers) else -1
        )
    return _outcome(made, servers, ended)


def _came(servers: Sequence[_Server]) -> bool:
    return any(server.talks for server in servers)


def _outcome(made: Reproducer, servers: Sequence[_Server], ended: Ended) -> Outcome:
    outcome = Outcome(is_same=sum(len(server.talks) for server in servers) == len(made.lines))
    for server in servers:
        recorded = [line for line in made.lines if line.endpoint == server.number]
        for place, talk in enumerate(server.talks):
            wanted = recorded[place].requests if place < len(recorded) else []
            is_same = len(talk.got) == len(wanted) and all(map(_is_like, talk.got, wanted))
            outcome.is_same &= is_same
            outcome.lines.append(
                f"connection {place + 1}: {len(talk.got)} requests" + ("" if is_same else f", {len(wanted)} recorded")
            )
    if made.verdict in ("HANG", "CRASH"):
        outcome.is_same = True  # that it ends so is the fault, whatever it has asked before
    outcome.is_same &= outcome_of(ended) == made.ended
    outcome.lines.append(ended.death or "how the client ended can't be seen")
    return outcome


def _is_like(came: str, recorded: str) -> bool:
    """Whether a request has the command of the recorded one, whose words may say how much data came with it."""
    return recorded.startswith(REFUSED) or came == recorded.partition(" ")[0]


class _Server(Listener["_Talk"]):
    def __init__(self, made: Reproducer, number: int) -> None:
        super().__init__(LOOPBACK, 0)
        self.number, self.talks = number, list[_Talk]()
        self._lines: Iterator[Line] = iter([line for line in made.lines if line.endpoint == number])
        self._lock_of_talks = threading.Lock()

    def _conversation(self, channel: Channel, name: str) -> _Talk:
        with self._lock_of_talks:
            talk = _Talk(channel, name, next(self._lines, Line(self.number, ())))
            self.talks.append(talk)
            return talk


class _Talk:
    """One connection: what was recorded of it, step by step; then whatever else comes is counted."""

    def __init__(self, channel: Channel, name: str, line: Line) -> None:
        self.name, self.got = name, list[str]()
        self._channel, self._line, self._is_over = channel, line, False

    def hang_up(self) -> None:
        """End the connection from another thread."""
        self._is_over = True
        self._channel.hang_up()

    def turn_away(self, reason: str) -> None:
        """End the connection before its first byte is read."""
        self._channel.close()

    def converse(self) -> None:
        """Take every step, then read until the client ends."""
        try:
            self._channel.set_up(TICK)
            for act, words in self._line.steps:
                if act == "request":
                    self._hear()
                elif act == "reply":
                    self._channel.send(bytes.fromhex(words))
                elif words == "FIN":
                    self._channel.finish_sending()
                else:
                    self._channel.close(reset=True)
                    return
            while True:
                self._hear()
        except (_Ended, OSError):
            pass
        finally:
            self._channel.close()

    def _hear(self) -> None:
        """Receive a message and note its command; its length may be a lie, so that no room is made for it."""
        head = self._receive(HEAD)
        left = int.from_bytes(head[1:], "little")
        self.got.append(NAMES.get(head[0], f"command {head[0]}"))
        while left:
            left -= len(self._receive(min(left, CHUNK)))

    def _receive(self, size: int) -> bytes:
        room, at = memoryview(bytearray(size)), 0
        while at < size:
            try:
                count = self._channel.receive(room[at:])
            except Waited:
                if self._is_over:
                    raise _Ended from None
                continue
            if not count:
                raise _Ended
            at += count
        return bytes(room)


class _Ended(Exception):  # noqa: N818
    """The client sends no more."""
