"""Where a client's tensors lie: each record that it sent, with the buffer that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ggml_rpc_ref.conformance.clients.heard import Asked, Run, records_of
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import types
from ggml_rpc_ref.spec.messages import AllocBuffer, BufferGetBase
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import extent


class Place(NamedTuple):
    """A tensor record that a client sent, and where it lies.

    Attributes:
        command: in which request.
        record: the record.
        name: the tensor's name.
        offset: of its first byte in the buffer.
        size: bytes of the buffer, as the server said.
        nbytes: bytes of the tensor; 0 for a type that the version lacks.
        is_view: whether it says that it is a view of another.
    """

    command: str
    record: Any
    name: str
    offset: int
    size: int
    nbytes: int
    is_view: bool


def placed(run: Run) -> Iterator[Place]:
    """Yield the records that name a buffer whose base the client had asked for, in the order in which they came."""
    for talk in run.conversations:
        sizes: dict[int, int] = {}
        bases: dict[int, int] = {}
        for asked in talk.asked:
            if asked.cls is AllocBuffer and asked.reply is not None:
                sizes[asked.reply.remote_ptr] = asked.reply.remote_size
            elif asked.cls is BufferGetBase and asked.reply is not None:
                bases[asked.message.remote_ptr] = asked.reply.base_ptr
            for record in records(asked):
                buffer = int(record["buffer"])
                if buffer in bases and buffer in sizes:
                    yield _place(asked.command, record, bases[buffer], sizes[buffer], run.version)


def records(asked: Asked) -> Iterator[Any]:
    """Yield the tensor records of a request, read by name."""
    if isinstance(asked.message, Graph):
        yield from asked.message.tensors
    else:
        yield from (_ByName(record) for record in records_of(asked))


class _ByName:
    """A record of the codec's, read as those of arrays are."""

    def __init__(self, record: Any) -> None:
        self._record = record

    def __getitem__(self, name: str) -> Any:
        return getattr(self._record, name)


def _place(command: str, record: Any, base: int, size: int, version: Version) -> Place:
    name = bytes(record["name"]).split(b"\0")[0].decode("utf-8", "replace")
    dtype = types(version).get(int(record["type"]))
    ne, nb = tuple(map(int, record["ne"])), tuple(map(int, record["nb"]))
    nbytes = 0 if dtype is None else extent(dtype, ne, nb)  # type: ignore[arg-type]
    return Place(command, record, name, int(record["data"]) - base, size, nbytes, bool(record["view_src"]))
