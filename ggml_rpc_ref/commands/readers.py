"""Every reader of files that the command line has, and small files of their kinds: what `fuzz --inside` damages and reads."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.conformance import difference, expect, fleet
from ggml_rpc_ref.fuzz.finds import Store
from ggml_rpc_ref.fuzz.ourselves import READERS as FUZZED
from ggml_rpc_ref.fuzz.ourselves import Reader
from ggml_rpc_ref.golden import play, reproducer, session, verify
from ggml_rpc_ref.models.gguf_file import ModelFile


def _gguf() -> bytes:
    """Return a small GGUF: metadata of every kind that is read of one, a vocabulary of three tokens, and two tensors."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words)) + words.encode()

    def entry(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    entries = [
        entry("general.architecture", 8, text("gemma3")),
        entry("gemma3.context_length", 4, struct.pack("<I", 32)),
        entry("gemma3.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-6)),
        entry("tokenizer.ggml.model", 8, text("llama")),
        entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + text("<s>") + text("a") + text("b")),
        entry("tokenizer.ggml.scores", 9, struct.pack("<IQ3f", 6, 3, 0, -1, -2)),
        entry("tokenizer.ggml.token_type", 9, struct.pack("<IQ3i", 5, 3, 3, 1, 1)),
        entry("tokenizer.ggml.bos_token_id", 4, struct.pack("<I", 0)),
        entry("tokenizer.ggml.add_bos_token", 7, b"\1"),
        entry("tokenizer.ggml.add_space_prefix", 7, b"\0"),
        entry("tokenizer.ggml.eos_token_id", 4, struct.pack("<I", 1)),
    ]
    # name, dimensions, type (F32, Q8_0), offset of the data
    tensors = [text("norm.weight") + struct.pack("<IQIQ", 1, 8, 0, 0), text("out.weight") + struct.pack("<IQQIQ", 2, 32, 2, 8, 32)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(32) + bytes(68)


def _gguf_weights(path: Path) -> None:
    """Read a GGUF and the bytes of its weights."""
    for weight in ModelFile(path).weights.values():
        weight.source()


READERS: Final[Mapping[str, Reader]] = {
    **FUZZED,
    "replay of a failure": lambda path: reproducer.parse(_text(path)),
    "finds": lambda path: Store(path.parent),
    "vectors verify": verify,
    "vectors play": lambda path: list(play.cases(path, {})),
    "vectors record": lambda path: session.make(path, session.Labels()),
    "conform --expect": expect.load,
    "diff": difference.read,
    "fleet": fleet.read,
    "run": _gguf_weights,
}
"""Name to reader: of a damaged file it may raise nothing but a Misuse."""

_STEP: Final = {"connection": 1, "command": "HELLO", "send": ["0e0000000000000000"]}
_RECEIVED: Final = {"connection": 1, "got": ["0300000000000000030601"], "end": "end"}
SAMPLES: Final[Mapping[str, tuple[str, Any]]] = {
    "GGUF": (".gguf", _gguf()),
    "failure": (
        ".json",
        {
            "form": reproducer.FORM,
            "id": "x",
            "about": "y",
            "deadly": False,
            "hello": "0e0000000000000000",
            "steps": [_STEP, _RECEIVED],
        },
    ),
    "expected failures": (
        ".json",
        {"device.count/three-times": {"verdict": ["FAIL", "HANG"], "reason": "x", "reference": "y", "review_by": "2027-01-31"}},
    ),
    "report": (".json", {"schema_version": 1, "cases": [{"id": "device.count/three-times", "verdict": "PASS"}]}),
    "fleet": (".json", {"defaults": {"timeout": 2.0}, "servers": [{"name": "x", "endpoint": "127.0.0.1:1", "only": ["frame"]}]}),
    "fleet in TOML": (".toml", '[defaults]\ntimeout = 2.0\n[[servers]]\nname = "x"\nendpoint = "127.0.0.1:1"\nonly = ["frame"]\n'),
}
"""Kind of file to its suffix and its content: JSON, text or bytes; those that are made of a session `ourselves` has."""


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
