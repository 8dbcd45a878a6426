"""Gemma 3 270M with its weights unpacked: nothing is rounded on the way, so two servers must say the same, token for token."""

from __future__ import annotations

from pathlib import Path

import gguf

from ggml_rpc_ref import blocks, upstream
from ggml_rpc_ref.spec.dtypes import BY_NUMBER


def unpack(model: Path, path: Path) -> None:
    """Write a model again with every weight in F32: 1.1 GB."""
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, "gemma3")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            kind, *_ = field.types
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        dtype, (n, *rows) = BY_NUMBER[tensor.tensor_type], tensor.shape.tolist()
        packed = tensor.data.reshape(-1, n // dtype.block, dtype.size) if dtype.is_quantised else tensor.data
        values = blocks.dequantise(dtype, packed) if dtype.is_quantised else packed
        writer.add_tensor(tensor.name, values.reshape(*rows[::-1], n))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def distances(one: upstream.Generation, other: upstream.Generation) -> list[float]:
    """How far the logits of the two best tokens of each step lie apart."""
    found = []
    for a, b in zip(one.top, other.top, strict=True):
        known = dict(b)
        found += [abs(logit - known[token]) for token, logit in a[:2]]
    return found
