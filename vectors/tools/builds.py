"""Which genuine builds a recorder records, and where what it records goes; of ours the recorders use this alone.

A recorder is told the builds' names on its command line; told none, it takes every installed build that keeps its source.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ggml_rpc_ref import upstream

VECTORS = Path(__file__).resolve().parents[1]


def folder(build: upstream.Build) -> Path:
    """Return the directory of a build's recordings."""
    return VECTORS / f"upstream-{build.protocol}-{build.package.name}-{build.package.version}"


def source(build: upstream.Build) -> Path:
    """Return the ggml that a build was compiled from; only builds made by cmake keep it."""
    return build.root / "source" / "ggml"


def wanted(arguments: list[str]) -> Iterator[upstream.Build]:
    """Yield the builds that the arguments name, or all that are installed and keep their source."""
    if arguments:
        yield from map(upstream.find, arguments)
    else:
        yield from (build for build in upstream.installed() if source(build).exists())


def head(build: upstream.Build, recorder: str) -> dict[str, Any]:
    """Return what a recording begins with."""
    return {
        "schema_version": 1,
        "protocol": build.protocol,
        "package": str(build.package),
        "recorded_by": f"vectors/tools/{Path(recorder).name}",
    }


def command(build: upstream.Build, script: str, *arguments: object) -> list[str]:
    """Return the command that runs a script in the Python that a build wants, with the directory of its libraries first."""
    return [str(build.python), "-I", str(Path(script).resolve()), *map(str, (*arguments[:1], build.libraries, *arguments[1:]))]


def protocol_of(build: upstream.Build) -> tuple[int, int, int]:
    """Return a build's protocol as three numbers."""
    major, minor, patch = map(int, build.protocol.split("."))
    return major, minor, patch


def arguments() -> list[str]:
    """Return the command line's arguments."""
    return sys.argv[1:]
