"""The memories of an op vector: what each holds before the node runs, and what the genuine server left in it.

An operand without an alias owns a memory. Up to 256 bytes are in the JSON, more are beside it in `<op>.inputs`: zlib streams
without gaps, in the order in which the JSON names their operands. A dst with neither is overwritten completely by the node.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import extent

SUFFIX: Final = ".inputs"
"""The suffix of the file beside the JSON."""
MOST: Final = 2**28
"""The most bytes of an operand: its ne and nb may be anything, and a player has to hold them."""


def owners(case: Any) -> Iterator[tuple[str, Any]]:
    """Yield name ("dst", "src0" and so on) and JSON object of each operand of a case that owns its memory, in the case's order."""
    named = {"dst": case["dst"]} | {f"src{slot}": operand for slot, operand in enumerate(case["src"])}
    yield from ((name, operand) for name, operand in named.items() if operand is not None and "alias" not in operand)


def size(operand: Any) -> int:
    """Return the bytes of an operand from the first to the last element.

    Raises:
        ValueError: for an unknown type, or for more than `MOST` bytes; the message is half a sentence.
    """
    a, b, c, d = operand["ne"]
    e, f, g, h = operand["nb"]
    if operand["type"] not in BY_NAME:
        raise ValueError(f"has the type {operand['type']!r}, which is unknown")
    bytes_ = extent(BY_NAME[operand["type"]], (a, b, c, d), (e, f, g, h))
    if bytes_ > MOST:
        raise ValueError(f"reaches over {bytes_:.3g} bytes, more than {MOST}")
    return bytes_


def payloads(path: Path) -> bytes:
    """Return the bytes of the file beside an op's JSON; empty where no operand needs one."""
    beside = path.with_suffix(SUFFIX)
    return beside.read_bytes() if beside.is_file() else b""


def before(operand: Any, beside: bytes) -> bytes | None:
    """Return what the memory that an operand owns holds before the node runs; None: any bytes.

    Args:
        operand: its JSON object.
        beside: the contents of `<op>.inputs`.

    Raises:
        ValueError: if these are not the bytes that the genuine server was given; the message is half a sentence.
    """
    if "payload" in operand:
        data = _payload(operand, beside)
    elif "bytes" in operand:
        data = base64.b64decode(operand["bytes"])
    else:
        return None
    if len(data) != size(operand):
        raise ValueError(f"holds {len(data)} bytes, its type, ne and nb make {size(operand)}")
    if hashlib.sha256(data).hexdigest() != operand["sha256"]:
        raise ValueError("does not match its sha256")
    return data


def _payload(operand: Any, beside: bytes) -> bytes:
    at, length = operand["payload"]["at"], operand["payload"]["size"]
    if at + length > len(beside):
        raise ValueError(f"has its payload from byte {at} to {at + length}, but the file of inputs ends at {len(beside)}")
    return _inflated(beside[at : at + length], size(operand))


def after(case: Any, name: str) -> bytes | None:
    """Return what the genuine server left in a memory of a case, named by the operand that owns it; None: it did not change.

    Raises:
        ValueError: if the recorded bytes can't be read; the message is half a sentence.
    """
    if name not in case["expected"]:
        return None
    wanted = size(dict(owners(case))[name])
    data = _inflated(base64.b64decode(case["expected"][name]), wanted)
    if len(data) != wanted:
        raise ValueError(f"is expected to hold {len(data)} bytes, its type, ne and nb make {wanted}")
    return data


def _inflated(stream: bytes, most: int) -> bytes:
    """Return the bytes that a zlib stream holds, of which there may be at most `most`."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(stream, most + 1)
    except zlib.error as error:
        raise ValueError(f"is not a zlib stream: {error}") from None
    if len(data) > most:
        raise ValueError(f"unpacks to more than the {most} bytes that its type, ne and nb make")
    if not inflater.eof:
        raise ValueError(f"is a zlib stream that breaks off after {len(data)} bytes")
    if inflater.unused_data:
        raise ValueError(f"has {len(inflater.unused_data)} bytes after the end of its zlib stream")
    return data


def _places(case: Any, own: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the places of operands: each lies within the memory that it owns or that `alias` names."""
    named = {"dst": case["dst"]} | {f"src{slot}": operand for slot, operand in enumerate(case["src"]) if operand is not None}
    for name, operand in named.items():
        owner = own.get(operand.get("alias", name))
        if owner is None:
            yield f"{name} has the alias {operand['alias']!r}, which owns no memory"
            continue
        try:
            outside = operand["offset"] + size(operand) > size(owner)
        except ValueError as error:
            yield f"{name} {error}"
        else:
            if outside:
                yield f"{name} reaches beyond its memory"


def faults(path: Path, content: Any) -> Iterator[str]:
    """Yield what is wrong with the memories in an op's file, which follows its schema, and with the file beside it."""
    beside, end = payloads(path), 0
    for case in content["cases"]:
        own = dict(owners(case))
        yield from (
            f"{case['id']}: {name} is expected to change and owns no memory" for name in case["expected"] if name not in own
        )
        yield from (f"{case['id']}: {fault}" for fault in _places(case, own))
        for name, operand in own.items():
            try:
                if before(operand, beside) is None and (name != "dst" or after(case, name) is None):
                    raise ValueError("has neither bytes nor payload, and no result that overwrites it")
                after(case, name)
            except ValueError as error:
                yield f"{case['id']}: {name} {error}"
            if "payload" in operand:
                if operand["payload"]["at"] != end:
                    yield f"{case['id']}: {name} has its payload at {operand['payload']['at']}, the one before ends at {end}"
                end = operand["payload"]["at"] + operand["payload"]["size"]
    if end != len(beside):
        yield f"the payloads end at {end}, {path.with_suffix(SUFFIX).name} at {len(beside)}"
