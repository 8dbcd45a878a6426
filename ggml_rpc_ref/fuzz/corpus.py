"""Seeds for other people's fuzzers: whole conversations as files for AFL++, libFuzzer and AFLNet, and a dictionary of the protocol.

The handles in them are made up, as no server has chosen any: a fuzzer that plays them gets past HELLO and the queries, and to the
checks of handles. A harness that puts a server's own numbers in finds them by `packet.meaning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import bytes_of
from ggml_rpc_ref.fuzz.packet import handle
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.messages import AllocBuffer, BufferGetBase, Hello, by_number
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, Version


def write(directory: Path, count: int, version: Version = DEFAULT, seed: str = "0") -> int:
    """Write `count` conversations as .raw files, and `ggml-rpc.dict`; return how many files there are.

    Raises:
        OSError: where they can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    generator = Generator(version, clients=1)
    for number in range(count):
        focus = generator.names[number % len(generator.names)] if number % 2 else ""
        session = generator.session(f"{seed}/{number}", focus)
        opening = [codec.encode_request(Hello(), version)]
        for buffer in session.buffers:
            opening.append(codec.encode_request(AllocBuffer(size=buffer.size), version))
            opening.append(codec.encode_request(BufferGetBase(remote_ptr=handle(buffer.number)), version))
        (directory / f"{number:05}.raw").write_bytes(b"".join(opening) + bytes_of(session, 0, {}))
    (directory / "ggml-rpc.dict").write_text("\n".join(dictionary(version)) + "\n", encoding="utf-8")
    return count + 1


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
