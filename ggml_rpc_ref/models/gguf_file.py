"""A model in a GGUF file: its metadata, and its weights as the scheduler takes them, read from the mapped file when they are sent.

The package gguf reads the file; `files.gguf` is its door.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ggml_rpc_ref.client.scheduler.weights import Weight
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.gguf import reader_type
from ggml_rpc_ref.models.vocabulary import Vocabulary
from ggml_rpc_ref.spec.dtypes import BY_NUMBER


class ModelFile:
    """A GGUF file.

    Args:
        path: the file.

    Raises:
        Misuse: where it can't be read, or the package gguf is missing.

    Attributes:
        architecture: general.architecture, "gemma3" for instance.
        weights: by name; bytes are read when a weight's `source` is called.
        vocabulary: tokens and text; None where the file has none of SentencePiece's kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = reader_type(path)
        try:
            reader = kind(path)
            self._fields: dict[str, Any] = {
                name: field.contents() for name, field in reader.fields.items() if field.types and field.types[0].name != "ARRAY"
            }
            self.architecture = str(self._fields.get("general.architecture", ""))
            self.weights = {tensor.name: _weight(tensor, path) for tensor in reader.tensors}
            self.vocabulary = _vocabulary(reader.fields)
        except _DAMAGED as error:
            raise Misuse(f"{path} can't be read as a GGUF: {error or type(error).__name__}") from None

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number of the architecture's metadata.

        Raises:
            Misuse: where the file has none of that name and there is no default.
        """
        value = self._fields.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, int | float):
            raise Misuse(f"{self.path} has no number {self.architecture}.{key}")
        return float(value)

    def size(self, key: str) -> int:
        """Return a whole number of the architecture's metadata."""
        return int(self.number(key))


_DAMAGED = (
    OSError, ValueError, KeyError, IndexError, OverflowError, TypeError, AttributeError, RecursionError, struct.error,
)  # fmt: skip
"""What a damaged file may raise in the package and in what is made of it here: no such type, a text for a number."""


def _weight(tensor: Any, path: Path) -> Weight:
    number = int(tensor.tensor_type)
    if number not in BY_NUMBER:
        raise Misuse(f"{path}: {tensor.name} has the type {number}, which is not known here")
    start, size, ne = int(tensor.data_offset), int(tensor.n_bytes), tuple(int(n) for n in tensor.shape)
    # mapped anew each time: what was read is given back to the system when the upload is over. Writeable for who asks, but never
    # in the file ("c", copy on write): a backend of this machine uses the bytes where they are
    return Weight(BY_NUMBER[number], ne, lambda: np.memmap(path, np.uint8, "c", start, (size,)))


def _vocabulary(fields: Any) -> Vocabulary | None:
    if "tokenizer.ggml.model" not in fields or fields["tokenizer.ggml.model"].contents() != "llama":
        return None
    tokens, scores, kinds = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    ends = {int(fields[key].contents()) for key in _ENDS if key in fields}

    def flag(name: str, default: bool) -> bool:
        return bool(fields[name].contents()) if name in fields else default

    start = int(fields["tokenizer.ggml.bos_token_id"].contents()) if flag("tokenizer.ggml.add_bos_token", True) else None
    return Vocabulary(
        tokens.parts[tokens.data[0]],
        scores.parts[scores.data[0]],
        kinds.parts[kinds.data[0]],
        start,
        ends,
        flag("tokenizer.ggml.add_space_prefix", True),
    )


_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
"""Metadata that name the tokens which end a text."""
