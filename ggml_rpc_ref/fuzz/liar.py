"""The other direction: a server that lies to a client. It is our own, honest in all but one thing of one conversation.

lie = Lie("size-huge", "GET_ALIGNMENT", 1)
with Liar(lie) as server: ...        # the first reply to GET_ALIGNMENT claims to have 2^63 bytes
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from ggml_rpc_ref.conformance.clients.player import Player, make_host
from ggml_rpc_ref.conformance.clients.script import EACH_BYTE, Change, End, Script
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import NO_REPLY, by_number
from ggml_rpc_ref.spec.versions import DEFAULT, Version

HEAD: Final = codec.REPLY_HEAD

Told = Callable[[bytes, Random], bytes]
"""Turns the bytes of an honest reply into those of a lie."""


def _sized(size: int) -> Told:
    return lambda reply, _: HEAD.pack(size % 2**64) + reply[8:]


def _payload(change: Callable[[bytes, Random], bytes]) -> Told:
    return lambda reply, rng: reply[:8] + change(reply[8:], rng)


def _words(value: int) -> Told:
    """Every u64 of the payload, or its bytes where it is shorter, becomes this."""
    return _payload(lambda payload, _: (struct.pack("<Q", value) * (len(payload) // 8 + 1))[: len(payload)])


LIES: Final[dict[str, Told]] = {
    "size-zero": _sized(0),
    "size-one-less": lambda reply, _: HEAD.pack((len(reply) - 9) % 2**64) + reply[8:],
    "size-one-more": lambda reply, _: HEAD.pack(len(reply) - 7) + reply[8:],
    "size-large": _sized(2**40),
    "size-huge": _sized(2**63),
    "size-most": _sized(2**64 - 1),
    "all-zero": _words(0),
    "all-ones": _words(2**64 - 1),
    "small": _words(3),
    "large": _words(2**62),
    "odd-address": _words(0x7F0000000001),
    "random": _payload(lambda payload, rng: rng.randbytes(len(payload))),
    "flipped": _payload(lambda payload, rng: _flipped(payload, rng)),
    "cut": lambda reply, _: reply[: max(1, len(reply) - 1)],
    "twice": lambda reply, _: reply * 2,
    "noise": lambda reply, rng: rng.randbytes(len(reply) + 7),
    "text": lambda reply, _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "none": lambda reply, _: b"",
}
"""Name to what becomes of a reply. After "cut" and "none" the connection is ended; "drip" sends it by bytes, "silence" never."""
ENDS: Final = frozenset({"cut", "none"})


def _flipped(payload: bytes, rng: Random) -> bytes:
    out = bytearray(payload)
    if out:
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class Lie:
    """One lie.

    Attributes:
        name: a key of LIES, or "drip" or "silence".
        command: the command whose reply it is.
        number: which of the replies to it, from 1.
    """

    name: str
    command: str
    number: int = 1

    def __str__(self) -> str:
        """Write it as `parse_lie` reads it."""
        return f"{self.name}@{self.command}#{self.number}"


def parse_lie(text: str, version: Version = DEFAULT) -> Lie:
    """Return the lie that a text like "size-huge@GET_ALIGNMENT#1" names.

    Raises:
        Misuse: for an unknown lie or command.
    """
    name, _, rest = text.partition("@")
    command, _, number = rest.partition("#")
    if name not in (*LIES, "drip", "silence") or command not in answered(version) or not (number or "1").isdigit():
        raise Misuse(f"{text!r} is not a lie: write NAME@COMMAND#NUMBER with one of {', '.join([*LIES, 'drip', 'silence'])}")
    return Lie(name, command, int(number or 1))


def answered(version: Version = DEFAULT) -> list[str]:
    """Return the names of the commands that a version answers."""
    return [row.name for row in by_number(version).values() if row.reply(version) is not NO_REPLY]


def all_lies(version: Version = DEFAULT) -> list[Lie]:
    """Return every lie about the first reply to each command."""
    return [Lie(name, command) for command in answered(version) for name in (*LIES, "drip", "silence")]


class Liar:
    """A server on loopback that tells one lie: the player of `conform-client`, with a script of one change.

    Args:
        lie: what about.
        version: the protocol version that it speaks.
        seed: of the lies that are random.
    """

    def __init__(self, lie: Lie, version: Version = DEFAULT, seed: int = 0) -> None:
        script = Script(version, changes=(change_of(lie, Random(seed)),))
        self._player = Player([make_host(version, 1, None)], script, [("127.0.0.1", 0)])
        self.endpoint = self._player.endpoints[0]

    def __enter__(self) -> Liar:
        """Begin to listen."""
        self._player.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """End the server.

        Raises:
            Exception: where something went wrong in it that is not a lie.
        """
        self._player.stop()
        if self._player.defect is not None:
            raise self._player.defect

    @property
    def told(self) -> int:
        """How often it has lied."""
        return self._player.told


def change_of(lie: Lie, rng: Random) -> Change:
    """Return what is different from an honest server."""
    match lie.name:
        case "silence":
            return Change(lie.command, lie.number, alter=lambda _: b"")
        case "drip":
            return Change(lie.command, lie.number, cut=EACH_BYTE)
        case name:
            end = End.FIN if name in ENDS else End.NOT
            return Change(lie.command, lie.number, alter=lambda reply: LIES[name](reply, rng), end=end)
