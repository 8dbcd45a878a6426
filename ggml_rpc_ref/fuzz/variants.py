"""Many variants of a session's messages, said one after the other to what the session has left: its buffers and stored graphs.

A server refuses by ending the connection, so a session shows what it does with one bad message, and costs milliseconds to build up.
In this process the next message can be said on another connection to the same state; each costs tens of microseconds then. What
is changed are fields, by the table: a number becomes an edge, a neighbour, a multiple, or what another message has there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import Final, NamedTuple

from ggml_rpc_ref.fuzz.packet import HEAD
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import graph_nodes_offset
from ggml_rpc_ref.spec.messages import FreeBuffer, GraphCompute, Hello, RpcTensor, by_number, fields
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.spec.wire import Array, Int, Record

LONGEST: Final = 2048
"""Bytes of a message that is varied; of a longer one with data, these without their end. A graph is varied whole, up to a limit."""
LONGEST_GRAPH: Final = 2**14
EVERY: Final = 24
"""How many variants of other messages come before one of a graph, which takes as long as all of them to check."""
_EDGES: Final = tuple(
    number + near & 2**64 - 1
    for number in (0, 1, 4, 32, 64, 256, 4096, 65536, 2**24, 2**31, 2**32, 2**40, 2**48, 2**62, 2**63, 2**64)
    for near in (-1, 0, 1)
)


class Spot(NamedTuple):
    """A number in a message's bytes: where, and how many bytes it has."""

    at: int
    width: int


SIZE: Final = Spot(1, 8)
"""A message's size field, which one variant in sixteen changes."""


def variants(rng: Random, messages: Sequence[bytes], version: Version, count: int) -> Iterator[bytes]:
    """Yield variants of messages.

    Args:
        rng: of all choices.
        messages: the bytes of whole requests, as they were sent.
        version: the protocol version.
        count: how many.
    """
    graphs, others = _sorted(messages, version)
    if not graphs and not others:
        return
    graphs, others = graphs or others, others or graphs
    for number in range(count):
        bits = rng.getrandbits(32)
        some = others if number % EVERY else graphs
        data, spots = some[(bits & 0xFFFF) % len(some)]
        yield varied(rng, data, spots, others[(bits >> 16) % len(others)][0])


def varied(rng: Random, data: bytes, spots: Sequence[Spot], other: bytes) -> bytes:
    """Return a message with one number changed, or a few; the numbers that replace them are odd ones, or another message's.

    Args:
        rng: of all choices.
        data: the message.
        spots: its numbers.
        other: another message.
    """
    out = bytearray(data)
    bits = rng.getrandbits(64)
    if not bits >> 60:
        spots = (SIZE,)
    for _ in range(1 if bits & 7 else 1 + (bits >> 3 & 3)):
        at, width = spots[(bits >> 8) % len(spots)]
        old = int.from_bytes(out[at : at + width], "little")
        choice, rest = bits >> 24 & 7, bits >> 32
        if choice < 2:
            new = _EDGES[rest % len(_EDGES)]
        elif choice == 2:
            new = old + (rest & 127) - 64
        elif choice == 3:
            new = old ^ 1 << rest % (8 * width)
        elif choice == 4:
            new = old * (2 + (rest & 3)) if rest & 4 else old >> 1 + (rest & 3)
        elif choice == 5:
            new = int.from_bytes(other[at : at + width], "little")
        elif choice == 6:
            new = rest & 63
        else:
            new = rest
        out[at : at + width] = (new & (1 << 8 * width) - 1).to_bytes(width, "little")
        bits = rng.getrandbits(64)
    return bytes(out)


_Form = tuple[bytes, tuple[Spot, ...]]


def _sorted(messages: Sequence[bytes], version: Version) -> tuple[list[_Form], list[_Form]]:
    """Return the graphs among messages, and the others, each with the places of its numbers; messages that are alike once."""
    graphs: list[_Form] = []
    others: dict[tuple[int, int], _Form] = {}
    known = by_number(version)
    for data in messages:
        row = known.get(data[0]) if len(data) >= HEAD else None
        if row is None or row.cls in (Hello, FreeBuffer):  # a buffer that is gone ends what can be said
            continue
        if row.cls is GraphCompute:
            if len(data) <= LONGEST_GRAPH and (spots := _graph_spots(data, version)):
                graphs.append((data, spots))
            continue
        if len(data) > LONGEST:
            data = data[:1] + struct.pack("<Q", LONGEST - HEAD) + data[HEAD:LONGEST]
        if numbers := _spots(row.cls, version):
            others[data[0], len(data)] = data, numbers
    return graphs, list(others.values())


@cache
def _spots(cls: type, version: Version) -> tuple[Spot, ...]:
    """Return where the numbers of a request are, its size field left out."""
    return tuple(Spot(HEAD + at, width) for at, width in _numbers(cls, version))


@cache
def _numbers(cls: type, version: Version) -> tuple[Spot, ...]:
    """Return where the numbers in the fixed part of a message are."""
    spots: list[Spot] = []
    at = 0
    for row in fields(cls, version):
        size = codec.wire_size(row.wire, version)
        match row.wire:
            case Int(width):
                spots.append(Spot(at, width))
            case Array(Int(width), length):
                spots += [Spot(at + width * index, width) for index in range(length)]
            case Record(of):
                spots += [Spot(at + inner.at, inner.width) for inner in _numbers(of, version)]
            case Array(Record(of), length):
                step = codec.minimum_size(of, version)
                inner_spots = _numbers(of, version)
                spots += [Spot(at + step * index + inner.at, inner.width) for index in range(length) for inner in inner_spots]
        at += size
    return tuple(spots)


def _graph_spots(data: bytes, version: Version) -> tuple[Spot, ...]:
    """Return where the numbers of a graph's request are; none where its counts lie."""
    first = HEAD + graph_nodes_offset(version)
    n_nodes = int.from_bytes(data[first - 4 : first], "little")
    second = first + 8 * n_nodes
    n_tensors = int.from_bytes(data[second : second + 4], "little")
    record = codec.minimum_size(RpcTensor, version)
    if len(data) != second + 4 + n_tensors * record:
        return ()
    return _spots_of_counts(n_nodes, n_tensors, version)


@cache
def _spots_of_counts(n_nodes: int, n_tensors: int, version: Version) -> tuple[Spot, ...]:
    first = HEAD + graph_nodes_offset(version)
    second = first + 8 * n_nodes
    record = codec.minimum_size(RpcTensor, version)
    spots = [*(Spot(at, 4) for at in range(HEAD, first, 4)), Spot(second, 4)]  # device and uid, where there are any, and the counts
    spots += [Spot(first + 8 * index, 8) for index in range(n_nodes)]
    inner_spots = _numbers(RpcTensor, version)
    spots += [Spot(second + 4 + record * index + inner.at, inner.width) for index in range(n_tensors) for inner in inner_spots]
    return tuple(spots)
