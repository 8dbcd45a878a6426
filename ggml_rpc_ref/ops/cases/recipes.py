"""Turn a test operand's recipe into a tensor in memory: deterministic, the same on every machine.

Only integers and float32 values that `numpy.random.Generator(PCG64)` yields are used, so a recipe and a seed say the bytes.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from ggml_rpc_ref.blocks import FORMATS
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Array, PlainStorage, Tensor, allocate, contiguous_nb

GUARD = 64
"""Bytes before and after each operand's memory that nothing may touch."""
GUARD_BYTE = 0xA5


def elements(fill: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return numbers of a shape (numpy's order) by a recipe; the recipes are listed at `Operand.fill`.

    Raises:
        Misuse: for a recipe that does not exist.
    """
    kind, _, rest = fill.partition(":")
    match kind:
        case "normal":
            return (rng.standard_normal(shape) * float(rest or 1)).astype(np.float32)
        case "uniform":
            low, high = (float(part) for part in rest.split(":"))
            return rng.uniform(low, high, shape).astype(np.float32)
        case "index":
            return rng.integers(0, int(rest), shape)
        case "arange":
            return np.arange(np.prod(shape, dtype=int)).reshape(shape)
        case "zeros":
            return np.zeros(shape, np.float32)
        case "permutation":
            return rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
        case "mask":
            return np.where(rng.random(shape) < 0.5, np.float32(0), np.float32(-np.inf))
        case "values":
            listed = np.array([float(part) for part in rest.split(",")])
            return np.resize(listed, shape)
        case "special":
            return _special(shape, rng)
        case "hadamard":
            return _hadamard(shape)
        case _:
            raise Misuse(f"unknown fill {fill!r}; see Operand.fill for the recipes")


def _hadamard(shape: tuple[int, ...]) -> Array:
    """Rows of the Hadamard matrix over the root of its length: negative where row and column share an odd number of bits."""
    row, column = np.indices(shape[-2:])
    odd = np.unpackbits((row & column).astype(">u4")[..., None].view(np.uint8), axis=-1).sum(axis=-1) % 2
    rows = np.where(odd, -1.0, 1.0) / np.sqrt(shape[-1])
    return np.broadcast_to(rows, shape).astype(np.float32)


def _special(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Normals, with one in eight replaced by a value at the edge of float32."""
    edges = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1e-20, 88.8, -104.0], np.float32)
    values = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.125, edges[rng.integers(0, len(edges), shape)], values)


def make(operand: Operand, seed: int) -> Tensor:
    """Return the operand as a tensor in memory of its own, guard bytes around it, gaps between elements set to the guard byte."""
    dtype, rng = BY_NAME[operand.dtype], np.random.default_rng(seed)
    tensor = allocate(dtype, operand.quad, operand.nb, fill=GUARD_BYTE, guard=GUARD)
    if operand.fill == "bits":
        tensor.array[...] = _random_bits(tensor.array, rng)
    elif operand.fill == "blocks":
        tensor.array[...] = _random_blocks(dtype.name, tensor.array.shape, rng)
    elif operand.nb is None or tensor.nelements:
        tensor.store(elements(operand.fill, tensor.shape, rng))
    return tensor


def _random_bits(like: Array, rng: np.random.Generator) -> Array:
    """Every bit pattern that the type has room for."""
    return rng.integers(0, 256, (*like.shape[:-1], like.shape[-1] * like.itemsize), np.uint8).view(like.dtype)


def _random_blocks(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Random bytes, but scales that keep the values small: for the IQ types, which are never quantised on a server."""
    layout = FORMATS[name].layout
    blocks = rng.integers(0, 256, shape, np.uint8).reshape(-1, shape[-1]).view(layout)[:, 0]
    scales = rng.uniform(-0.02, 0.02, len(blocks)).astype("<f2")
    if "d" in (layout.names or ()):
        blocks["d"] = scales
    else:  # IQ1_M deals the bits of its scale out to the high ends of four words
        bits = scales.view("<u2")[:, None] >> np.array([0, 4, 8, 12], "<u2")
        blocks["scales"] = blocks["scales"] & 0x0FFF | bits << 12
    return blocks.view(np.uint8).reshape(shape)


def build(op_name: str, case: Case, salt: str = "") -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return (dst, sources) of a case in memory; an operand with an alias shares the memory of the source it names.

    The seed of each operand is the CRC-32 of "<op>/<case id>/<slot><salt>"; another salt gives other numbers in the same shapes.
    """
    sources: list[Tensor | None] = []
    for slot, operand in enumerate(case.src):
        sources.append(None if operand is None else _place(operand, sources, f"{op_name}/{case.id}/{slot}{salt}"))
    return _place(case.dst, sources, f"{op_name}/{case.id}/dst{salt}"), tuple(sources)


def _place(operand: Operand, sources: list[Tensor | None], label: str) -> Tensor:
    if not operand.alias:
        return make(operand, crc32(label.encode()))
    owner = sources[int(operand.alias.removeprefix("src"))]
    if owner is None or not isinstance(owner.storage, PlainStorage):
        raise Misuse(f"{label}: alias {operand.alias!r} names an empty slot")
    dtype = BY_NAME[operand.dtype]
    nb = contiguous_nb(dtype, operand.quad) if operand.nb is None else operand.nb
    return Tensor(dtype, operand.quad, nb, owner.storage, owner.offset + operand.offset, "dst")
