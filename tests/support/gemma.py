"""Gemma 3 270M with its weights unpacked: nothing is rounded on the way, so two servers must say the same, token for token."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from ggml_rpc_ref import blocks, upstream
from ggml_rpc_ref.models.gguf_file import ModelFile
from ggml_rpc_ref.spec.dtypes import BY_NAME

HEADER = 24
"""Bytes before the metadata of a GGUF file."""
ALIGNMENT = 32
"""Of each tensor's bytes, in a file that names no other (general.alignment)."""


def unpack(model: Path, path: Path) -> None:
    """Write a model again with every weight in F32: 1.1 GB.

    The metadata are copied as they lie. The package gguf takes their vocabulary of 262,144 tokens apart one by one: 20 s.
    """
    weights = ModelFile(model).weights
    mapped = [weight.source() for weight in weights.values()]
    with model.open("rb") as file:
        before = file.read(min(data.offset for data in mapped if isinstance(data, np.memmap)))
    first = next(iter(weights)).encode()
    metadata = before.index(struct.pack("<Q", len(first)) + first, HEADER)
    infos, at = b"", 0
    for name, weight in weights.items():
        ne = weight.ne
        infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(ne)) + struct.pack(f"<{len(ne)}Q", *ne)
        infos += struct.pack("<IQ", BY_NAME["F32"].number, at)
        at += -(-4 * int(np.prod(ne)) // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(before[:metadata] + infos)
        for weight, stored in zip(weights.values(), mapped, strict=True):
            file.write(bytes(-file.tell() % ALIGNMENT))
            dtype = weight.dtype
            packed = stored.reshape(-1, weight.ne[0] // dtype.block, dtype.size)
            values = blocks.dequantise(dtype, packed) if dtype.is_quantised else stored.view(np.float32)
            values.tofile(file)


def distances(one: upstream.Generation, other: upstream.Generation) -> list[float]:
    """How far the logits of the two best tokens of each step lie apart."""
    found = []
    for a, b in zip(one.top, other.top, strict=True):
        known = dict(b)
        found += [abs(logit - known[token]) for token, logit in a[:2]]
    return found
