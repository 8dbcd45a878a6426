"""Every reader of files that the command line has, and small files of their kinds: what `fuzz --inside` damages and reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.conformance import difference, expect, fleet
from ggml_rpc_ref.fuzz.finds import Store
from ggml_rpc_ref.fuzz.ourselves import READERS as FUZZED
from ggml_rpc_ref.fuzz.ourselves import Reader
from ggml_rpc_ref.golden import play, reproducer, session, verify

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
}
"""Name to reader: of a damaged file it may raise nothing but a Misuse."""

_STEP: Final = {"connection": 1, "command": "HELLO", "send": ["0e0000000000000000"]}
_RECEIVED: Final = {"connection": 1, "got": ["0300000000000000030601"], "end": "end"}
SAMPLES: Final[Mapping[str, tuple[str, Any]]] = {
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
"""Kind of file to its suffix and its content: JSON, or text; those that are made of a session `ourselves` has."""


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
