"""Forks of llama.cpp whose bytes differ from upstream's: how they announce themselves, and what of their layouts is known.

A fork that answers HELLO with a version that upstream never had is recognised by it. One that keeps an upstream number while giving
some command numbers another meaning can't be told by HELLO: its rows here serve those who meet such a command.

Sources: the public code of each fork as far as it is stored (facts collected in 2026); ik_llama.cpp's rows are from the history of
its ggml-rpc.cpp and from a server built from the sdists of ik-llama-cpp-python 0.1.0 to 0.1.5. None of the others has been run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ggml_rpc_ref.spec.versions import V2_0_0, V3_5_0, V4_0_0, V7_0_0, V8_0_0, Version


@dataclass(frozen=True, slots=True)
class Announced:
    """What a fork answers HELLO with.

    Attributes:
        major, minor, patch: the numbers; None: any.
    """

    major: int
    minor: int | None = None
    patch: int | None = None

    def matches(self, version: Version) -> bool:
        """Whether a version is one of these."""
        return all(mine in (None, theirs) for mine, theirs in zip((self.major, self.minor, self.patch), version, strict=True))

    def __str__(self) -> str:
        return ".".join("x" if part is None else str(part) for part in (self.major, self.minor, self.patch))


@dataclass(frozen=True, slots=True)
class Dialect:
    """A fork.

    Attributes:
        name: of the fork, as its authors call it, or what is known of it.
        announces: what it answers HELLO with.
        differs: how it differs, as a sentence without its subject.
        layouts: the upstream version whose layouts it has, where they are known; its ops have numbers of their own all the same.
        commands: command number to what it means there, where upstream has another meaning or none.
    """

    name: str
    announces: tuple[Announced, ...]
    differs: str
    layouts: Version | None = None
    commands: Mapping[int, str] = field(default_factory=dict)

    @property
    def hides(self) -> bool:
        """Whether it answers HELLO with a number of upstream's, so that HELLO does not tell it apart."""
        return any(said.matches(version) for said in self.announces for version in UNDER_UPSTREAM_NUMBERS)


UNDER_UPSTREAM_NUMBERS = (V4_0_0, V7_0_0, V8_0_0)
"""Upstream's versions under which forks with other bytes are known."""

DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "ik_llama.cpp of June to November 2025",
        (Announced(2, 0, 1),),
        "has upstream's layouts of 2.0.0",
        V2_0_0,
    ),
    Dialect(
        "ik_llama.cpp of November 2025 to January 2026",
        (Announced(3, 5, 1),),
        "has upstream's layouts of 3.5.0; its client sends GRAPH_RECOMPUTE, which its server does not know",
        V3_5_0,
    ),
    Dialect(
        "ik_llama.cpp since January 2026",
        (Announced(3, 5, 2),),
        "has upstream's layouts of 3.5.0, with tensor records that grew without another version: 296 bytes until 2026-05-19, then "
        "312, 344 from 2026-06-29 on, and 376 with 64-bit ne and nb from the end of August 2026 on",
        V3_5_0,
    ),
    Dialect(
        "mesh-llm",
        (Announced(3, 7, 0),),
        "moves tensors between servers",
        commands={17: "REGISTER_PEER", 18: "PUSH_TENSOR_TO_PEER", 19: "PEER_TENSOR_DATA"},
    ),
    Dialect("a fork of qvac-fabric", (Announced(4, 4, 3), Announced(4, 11, 3)), "has its own numbers within major version 4"),
    Dialect("unslothai/llama.cpp", (Announced(5, 2), Announced(5, 3)), "adds GET_TENSORS, and in 5.3 peers"),
    Dialect(
        "a fork with GET_DEVICE_SUPPORTS_OP",
        (Announced(6, 0, 1), Announced(7, 0, 1)),
        "adds one command to upstream's of the same major version",
    ),
    Dialect(
        "a fork with an all-reduce over a mesh",
        (Announced(9, 1, 0),),
        "adds SET_TENSOR_HASH_NO_CACHE and an argument `poll`",
    ),
    Dialect("qvac-fabric", (Announced(107), Announced(108)), "counts its own major versions"),
    Dialect(
        "a fork in the manner of qvac-fabric",
        (Announced(8, 0, 0),),
        "has COMM_INIT with round, session_id[16] and wire_bf16, and COMM_ALLREDUCE with op_id",
        commands={23: "SYNCHRONIZE", 24: "SET_TENSOR_2D_HASH"},
    ),
    Dialect("a private fork", (Announced(7, 0, 0),), "has a byte `cache_write` of its own in SET_TENSOR"),
    Dialect(
        "forks that batch or push tensors",
        (Announced(4, 0, 0),),
        "have commands of their own under upstream's number",
        commands={
            17: "SET_TENSOR_BATCH, SET_TENSOR_FROM_LOCAL_FILE or PUSH_TENSOR",
            18: "EVENT_RECORD, SYNCHRONIZE or GRAPH_FORGET",
            19: "SNAPSHOT_TENSOR",
            20: "GET_SNAPSHOT",
        },
    ),
    Dialect(
        "osito-k",
        (Announced(4, 0, 0),),
        "is a kernel that answers discovery alone, and has commands of its own from 200 on",
    ),
)
"""Every fork known to differ, those first that HELLO tells apart."""

IK = DIALECTS[2]
IK_RECORDS = (296, 312, 344, 376)
"""Bytes of a tensor record in the builds of `IK`, oldest first."""


def recognised(version: Version) -> Dialect | None:
    """Return the fork that answers HELLO with a version that upstream never had; None where none is known to."""
    return next((row for row in DIALECTS if not row.hides and any(said.matches(version) for said in row.announces)), None)


def meanings(number: int) -> Iterator[str]:
    """Yield what a command number means in forks: "REGISTER_PEER in mesh-llm"."""
    return (f"{row.commands[number]} in {row.name}" for row in DIALECTS if number in row.commands)
