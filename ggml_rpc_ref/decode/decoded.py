"""A decoded input: its messages in the order in which they began, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggml_rpc_ref.decode.inputs import Kind, Source
from ggml_rpc_ref.decode.messages import Reader, announced, by_hello
from ggml_rpc_ref.decode.model import Fault, Message
from ggml_rpc_ref.decode.sources import read
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.protocol.negotiation import readable
from ggml_rpc_ref.spec.dialects import recognised
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version


@dataclass(frozen=True, slots=True)
class Options:
    """How to decode an input.

    Attributes:
        kind: kind of the input; None: detected from its first bytes.
        role: who sent raw bytes.
        version: protocol version; None: the one that the server announces, else the default.
        port: the server's port in captures.
        full: walk the tensors in arrays field by field, too.
        graph: list or draw graphs instead of messages.
        as_json: print one JSON document.
    """

    kind: Kind | None = None
    role: Role = Role.CLIENT
    version: Version | None = None
    port: int | None = None
    full: bool = False
    graph: Literal["text", "dot"] | None = None
    as_json: bool = False


@dataclass(slots=True)
class Decoded:
    """A decoded input, its messages in the order in which they began."""

    source: Source
    messages: list[Message]

    @property
    def faults(self) -> list[Fault]:
        """Everything that is wrong, messages first; an early end of a stream only where no message of the stream has a fault."""
        found = [message.fault for message in self.messages if message.fault is not None]
        faulty = {(message.connection, message.sender) for message in self.messages if message.fault is not None}
        found += [
            Fault("stream", f"ends: {stream.lost.problem}", stream.lost.rule, stream.end, conversation.where(role))
            for conversation in self.source.conversations
            for role, stream in conversation.sides.items()
            if self.source.fault is None and stream.lost and (conversation.number, role) not in faulty
        ]
        return [*found, self.source.fault] if self.source.fault is not None else found


def decode_file(path: Path, options: Options) -> Decoded:
    """Decode a file. Its content never makes this fail.

    Raises:
        Misuse: where the file can't be read.
    """
    source = read(path, options.kind, role=options.role, port=options.port)
    messages: list[Message] = []
    unanswered, strangers = [], set[Version]()
    for conversation in source.conversations:
        said = announced(conversation)
        guess = None if options.version or said else by_hello(conversation)
        if guess not in (None, DEFAULT):
            source.notes.append(f"no version is announced; read as {guess}, by the size of HELLO (--proto says another)")
        reader = Reader(conversation, options.version or _readable(said) or guess or DEFAULT, options.full)
        if said is not None and said not in PROFILES:
            strangers.add(said)
        messages += (*reader.requests(), *reader.replies())
        if (request := reader.unanswered) is not None and source.kind in ("recording", "pcap"):
            unanswered.append(f"{conversation.label}: {request.name} at offset {request.offset}")
    messages.sort(key=lambda message: (message.order, message.sender.value, message.offset))
    source.notes += [*_notes({message.version for message in messages}), *map(_stranger, sorted(strangers))]
    if unanswered:
        more = f" (and on {len(unanswered) - 1} more connections)" if len(unanswered) > 1 else ""
        source.notes.append(f"{unanswered[0]} got no reply{more}: refused, by it or one before it, or the input ends too early")
    return Decoded(source, messages)


def _readable(said: Version | None) -> Version | None:
    """Return the version to read by: a fork's own, where its layouts are known, since its ops have other names than upstream's."""
    read_as = readable(said) if said is not None else None
    return said if said is not None and read_as is not None and recognised(said) is not None else read_as


def _stranger(version: Version) -> str:
    """Say what a version is that is not upstream's."""
    fork, read_as = recognised(version), readable(version)
    numbers = "have numbers of its own, which are not named" if fork else "may have other numbers"
    who = f"{fork.name} says so, which {fork.differs}" if fork else "upstream had no such version that is known here"
    return f"the server announces protocol {version}: {who}; read by the layouts of {read_as}, and ops {numbers}"


def _notes(versions: set[Version]) -> Iterator[str]:
    """Yield a warning for each version whose layouts no recorded bytes confirm."""
    for version in sorted(versions):
        if version in PROFILES and not PROFILES[version].proven:
            yield f"protocol {version}: its layouts are from its sources and not held to recorded bytes, as {DEFAULT}'s are"
