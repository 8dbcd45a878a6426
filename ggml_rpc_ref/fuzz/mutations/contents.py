"""Mutations of what is uploaded: words, bytes, and the indices that a node takes from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from random import Random
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.fuzz.mutations.table import mutation, odd, pick, put
from ggml_rpc_ref.fuzz.session import Note, Session
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import SetTensor

INTEGERS: Final = {BY_NAME[name].number: BY_NAME[name].size for name in ("I32", "I64")}
"""Types of what holds indices to the bytes of one."""


@mutation("contents.words")
def contents(rng: Random, session: Session) -> Note | None:
    """Put numbers worth trying into an upload: large and negative indices, NaN, infinities."""
    index, message = _upload(rng, session)
    if message is None:
        return None
    width = rng.choice((4, 4, 4, 2, 8))
    data = np.frombuffer(message.data[: len(message.data) // width * width], f"<u{width}").copy()
    if not len(data):
        return None
    some = rng.choice((1, 4, len(data)))
    values = [odd(rng, int(data[0]), 8 * width) for _ in range(4)] if rng.random() < 0.7 else [_special(width, rng)]
    at = slice(None) if some == len(data) else rng.sample(range(len(data)), min(some, len(data)))
    data[at] = np.resize(np.array(values, data.dtype), data[at].shape)
    put(session, index, replace(message, data=data.tobytes() + message.data[data.nbytes :]))
    return Note("contents.words", _reader(session, index), f"{some} words of {width} bytes among the uploaded data changed")


@mutation("contents.bytes")
def contents_bytes(rng: Random, session: Session) -> Note | None:
    """Upload random bytes, zeros or ones."""
    index, message = _upload(rng, session)
    if message is None:
        return None
    size = len(message.data)
    data = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size))
    put(session, index, replace(message, data=data))
    return Note("contents.bytes", _reader(session, index), f"{size} other bytes uploaded")


def _special(width: int, rng: Random) -> int:
    dtype = {2: np.float16, 4: np.float32, 8: np.float64}[width]
    with np.errstate(over="ignore"):
        value: Any = dtype(rng.choice((float("nan"), float("inf"), float("-inf"), 1e38, -1e38, 1e-40)))
    return int(value.view(f"u{width}"))


def _upload(rng: Random, session: Session) -> tuple[int, Any]:
    found = [index for index, step in enumerate(session.steps) if isinstance(step.message, SetTensor) and step.message.data]
    index = rng.choice(found) if found else 0
    return (index, session.steps[index].message) if found else (0, None)


def _reader(session: Session, index: int) -> str:
    """Return the op of the next graph, which probably reads what was uploaded."""
    for step in session.steps[index:]:
        if isinstance(step.message, Graph):
            label = step.label(session.version)
            return label.partition(" of ")[2].partition(",")[0] or label
    return "SET_TENSOR"


# -------------------------------------------------------------------------------------------------------------- indices


@mutation("contents.index")
def contents_index(rng: Random, session: Session) -> Note | None:
    """Put one index worth trying where a node takes its indices from: too large, negative, or right in its lower 32 bits alone."""
    index = pick(rng, session, Graph)
    found = list(_indices(session, index)) if index is not None else []
    if not found:
        return None
    upload, at, width, count, op = rng.choice(found)
    at += width * rng.randrange(count)
    message: Any = session.steps[upload].message
    old = int.from_bytes(message.data[at : at + width], "little", signed=True)
    edges = (-1, -(2**31), 2**31 - 1, old + 1, old + rng.choice((2, 16, 64)), old - 1, old * 256, 2**24)
    wide = (2**32, old + 2**32, 2**63 - 1, -(2**63), old | 1 << rng.randrange(31, 63)) if width == 8 else ()
    new = rng.choice(wide if wide and rng.random() < 0.6 else edges) & (1 << 8 * width) - 1
    put(session, upload, replace(message, data=message.data[:at] + new.to_bytes(width, "little") + message.data[at + width :]))
    return Note("contents.index", op, f"an index {old} -> {new}")


def _indices(session: Session, graph: int) -> Iterator[tuple[int, int, int, int, str]]:
    """Yield (step, offset in its data, bytes of one, how many, op) for each upload of a graph's source of whole numbers."""
    message: Any = session.steps[graph].message
    records = {int(record["id"]): record for record in message.tensors}
    op = _reader(session, graph)
    for record in message.tensors:
        for id_ in record["src"].tolist():
            source = records.get(id_)
            if source is None or not (width := INTEGERS.get(int(source["type"]), 0)):
                continue
            place = int(source["data"])
            for index in range(graph - 1, -1, -1):
                sent = session.steps[index].message
                if isinstance(sent, SetTensor) and 0 <= (at := place - sent.tensor.data - sent.offset) <= len(sent.data) - width:
                    yield index, at, width, max(1, min(prod(source["ne"].tolist()), (len(sent.data) - at) // width)), op
                    break
