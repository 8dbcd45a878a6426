"""Seeds for other people's fuzzers: whole conversations as files for AFL++, libFuzzer and AFLNet, and a dictionary of the protocol.

Without a server the handles in them are made up: a fuzzer that plays them gets past HELLO and the queries, and to the checks of
handles. With one they have the numbers that it chose on a fresh start, which it must choose again for them to mean what they say:
the genuine one does where addresses are not randomised (`setarch -R`), ours never, since it draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ggml_rpc_ref.fuzz.converse import NoRoom, opened
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import bytes_of
from ggml_rpc_ref.fuzz.packet import Numbers, handle
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.fuzz.watch import Watched
from ggml_rpc_ref.net.stream import open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.messages import BufferGetBase, Hello, by_number
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, Version

Chosen = Callable[[Session], Numbers]
"""Returns the numbers that a server gives to a session's buffers."""


def write(directory: Path, count: int, version: Version = DEFAULT, seed: str = "0", chosen: Chosen = lambda _: {}) -> int:
    """Write `count` conversations as .raw files, and `ggml-rpc.dict`; return how many files there are.

    Raises:
        OSError: where they can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    generator = Generator(version, clients=1)
    for number in range(count):
        focus = generator.names[number % len(generator.names)] if number % 2 else ""
        session = generator.session(f"{seed}/{number}", focus)
        numbers = chosen(session)
        opening = [codec.encode_request(Hello(), version)]
        # all of them before the first address is asked for, as `converse.opened` does: addresses depend on the order
        opening += [codec.encode_request(buffer.request(version), version) for buffer in session.all_buffers]
        for buffer in session.all_buffers:
            remote_ptr, _ = numbers.get(buffer.number, (handle(buffer.number), 0))
            opening.append(codec.encode_request(BufferGetBase(remote_ptr=remote_ptr), version))
        (directory / f"{number:05}.raw").write_bytes(b"".join(opening) + bytes_of(session, 0, numbers))
    (directory / "ggml-rpc.dict").write_text("\n".join(dictionary(version)) + "\n", encoding="utf-8")
    return count + 1


def chosen_by(server: Watched, version: Version, timeout: float = 5.0) -> Chosen:
    """Return what asks a server, which is started anew for each session where it is ours to start."""

    def ask(session: Session) -> Numbers:
        server.renew()
        with open_stream(*server.target.endpoint, timeout=timeout) as stream, suppress(NoRoom):  # the made-up numbers stay then
            return opened(stream, tuple(session.all_buffers), version)
        return {}

    return ask


def dictionary(version: Version = DEFAULT) -> Iterator[str]:
    """Yield the lines of a dictionary for AFL++ and libFuzzer: heads of requests, numbers of types and ops, edges."""
    for row in by_number(version).values():
        head = codec.REQUEST_HEAD.pack(row.number, codec.minimum_size(row.cls, version))
        yield f'{row.name.lower()}="{_escaped(head)}"'
    for dtype in types(version).values():
        yield f'type_{dtype.name.lower()}="{_escaped(dtype.number.to_bytes(4, "little"))}"'
    for number, name in enumerate(op_table(version)):
        yield f'op_{name.lower()}="{_escaped(number.to_bytes(4, "little"))}"'
    for name, value in (("most", 2**64 - 1), ("half", 2**63), ("signed", 2**63 - 1), ("page", 4096), ("four_gib", 2**32)):
        yield f'u64_{name}="{_escaped(value.to_bytes(8, "little"))}"'


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
