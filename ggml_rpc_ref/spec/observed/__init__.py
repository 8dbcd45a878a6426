"""What genuine builds were observed to do with regard to each rule: a data file per build, keyed by rule id.

The files lie beside the witness, in vectors/upstream-*/observed.json, where `ggml-rpc-ref vectors verify` checks them; `gen`
copies them into this folder, and with it into the installed package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ggml_rpc_ref.spec.versions import DEFAULT, Version


@dataclass(frozen=True, slots=True)
class Observed:
    """What one build does.

    Attributes:
        directory: where the build's recordings lie below vectors/, e.g. "upstream-3.6.1-llama-cpp-python-0.3.20".
        protocol: its protocol version.
        build: the package and its version.
        evidence: what the sentences are based on.
        rules: rule id to what it does: "closes" where it refuses as our server does, "aborts" where the whole process dies.
    """

    directory: str
    protocol: Version
    build: str
    evidence: str
    rules: Mapping[str, str]


@cache
def observed(version: Version = DEFAULT) -> Observed:
    """Return what the build that represents a version does.

    Raises:
        LookupError: where no build of the version was observed.
    """
    for file in resources.files(__name__).iterdir():
        # from the right: the directory's name has the dots of versions in it
        directory, _, kind = file.name.rpartition(".")
        if kind == "json" and directory.startswith(f"upstream-{version}-"):
            row = json.loads(file.read_text(encoding="utf-8"))
            return Observed(directory, Version.parse(row["protocol"]), row["build"], row["evidence"], row["rules"])
    raise LookupError(f"no build of protocol {version} was observed")
