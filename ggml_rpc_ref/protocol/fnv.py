"""FNV-1a 64, the hash by which SET_TENSOR_HASH names data, without a loop over the bytes.

Where the package was installed with a C compiler, fnv.c hashes; what is here is the definition, and what numpy makes of it.

The definition takes two operations per byte, each of which needs the result of the one before: ``h = ((h ^ byte) * PRIME) mod
2^64``. Two facts break this chain, so that numpy can hash thousands of pieces ("lanes") of the data side by side:

- The xor touches the low byte of h only, and the low byte of a product depends on the low bytes of the factors only. So for two
  states with the same low byte that are fed the same bytes, the difference is multiplied by PRIME with each byte. A lane that was
  hashed from a state with the right low byte and zeros above it can be corrected afterwards by one multiplication.
- Bit k of ``(low ^ byte) * 0xb3`` is bit k of low, xor something that depends on the lower bits and the byte only, since 0xb3 is
  odd. So eight passes over the lanes, one per bit, find the low byte at the start of every lane.

Source: fnv_hash in ggml-rpc.cpp of 3.6.1, which is the published 64-bit FNV-1a.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

OFFSET_BASIS = 0xCBF29CE484222325
PRIME = 0x100000001B3
MODULUS = 2**64

try:
    compiled: Any = import_module("ggml_rpc_ref.protocol._fnv")
except ImportError:
    compiled = None
"""fnv.c as a module; None where it was not built."""

Lanes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Readable = bytes | bytearray | memoryview | Bytes

LANE = 32
"""Bytes of a lane. LANE and BLOCK are chosen so that the arrays of a pass fit into a processor's second-level cache."""
BLOCK = 2**20
"""Bytes hashed at once."""
SHORT = 2**12
"""Bytes up to which the plain loop is faster."""


def definition(data: Readable, state: int = OFFSET_BASIS) -> int:
    """Return the hash, computed byte by byte: the definition that the rest of this module computes faster."""
    for byte in bytes(data):
        state = (state ^ byte) * PRIME % MODULUS
    return state


def fnv1a(data: Readable) -> int:
    """Return the FNV-1a 64 hash of bytes."""
    return Fnv1a().update(data).value


class Fnv1a:
    """A hash that takes its bytes in pieces; `value` is the hash of all that have come."""

    def __init__(self) -> None:
        self.value = OFFSET_BASIS

    def update(self, data: Readable) -> Fnv1a:
        """Hash more bytes; return self."""
        array = np.frombuffer(data, np.uint8)
        if compiled is not None:
            # without the GIL, as every call of cffi's
            self.value = int(compiled.lib.fnv1a(compiled.ffi.from_buffer("uint8_t[]", array), len(array), self.value))
            return self
        for start in range(0, len(array), BLOCK):
            self._block(array[start : start + BLOCK])
        return self

    def _block(self, block: Bytes) -> None:
        whole = len(block) // LANE * LANE if len(block) > SHORT else 0
        if whole:
            self.value = _hash_lanes(block[:whole], self.value)
        self.value = definition(block[whole:].data, self.value)


def _hash_lanes(block: Bytes, state: int) -> int:
    """Return the hash after whole lanes, which continue from a state."""
    # steps[k]: byte k of every lane, side by side
    steps = list(np.ascontiguousarray(block.reshape(-1, LANE).T))
    starts = _low_bytes(steps, state)
    ends = starts.astype(np.uint64)
    for column in steps:
        np.bitwise_xor(ends, column, out=ends)
        np.multiply(ends, np.uint64(PRIME), out=ends)
    # each lane began from its low byte alone: take out what that contributed, and what is left adds up
    across = pow(PRIME, LANE, MODULUS)
    added = ends - starts * np.uint64(across)
    count = len(starts)
    # a block with fewer lanes has the last of the powers: they count the bytes that follow. uint64 wraps, modulo 2**64 as wanted
    total = (added * _powers()[-count:]).sum(dtype=np.uint64)
    return (int(total) + state * pow(across, count, MODULUS)) % MODULUS


def _low_bytes(steps: list[Bytes], state: int) -> Bytes:
    """Return the low byte of the state at the start of every lane, found bit by bit."""
    starts: Bytes = np.zeros(len(steps[0]), np.uint8)
    # from the lowest bit up: a bit of a product depends on that bit of the factors and those below it
    for bit in (1, 2, 4, 8, 16, 32, 64, 128):
        low = starts.copy()
        for column in steps:
            np.bitwise_xor(low, column, out=low)
            np.multiply(low, np.uint8(PRIME & 0xFF), out=low)
        # flips[i]: whether this bit changes along lane i - 1; the first entry is the bit itself
        flips = np.concatenate((np.array([state & bit], np.uint8), low[:-1] & np.uint8(bit)))
        np.bitwise_or(starts, np.bitwise_xor.accumulate(flips), out=starts)
    return starts


@cache
def _powers() -> Lanes:
    """Return what the lanes of a whole block are multiplied with: PRIME to the number of bytes that follow each of them."""
    across = pow(PRIME, LANE, MODULUS)
    powers = [1]
    for _ in range(BLOCK // LANE - 1):
        powers.append(powers[-1] * across % MODULUS)
    return np.array(powers[::-1], np.uint64)
