"""One row per protocol version, and the rule by which a client accepts a server's version.

A fact that only some versions have carries marks: `since`, the first version that has it, and `until`, the first version without
it. The marks stand on the rows of `messages`, `dtypes`, `opcodes` and `rules`; `present` reads them. No other room names a version.

The wire carries the version and not the build, and builds of one version can differ. A row describes the builds of its version that
were published as a package; where none was, those of its first day.

Source: ggml-rpc.h through the history of ggml-org/ggml, in the sdists 0.3.8 to 0.3.36 of llama-cpp-python and in that of xllamacpp
2026.10.11549, which is llama.cpp b11549.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Version(NamedTuple):
    """A protocol version, as HELLO's reply carries it; ordered as semantic versions are."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Return the version that a text like "3.6.1" names.

        Raises:
            ValueError: unless the text is three numbers below 256, separated by dots.
        """
        parts = text.split(".")
        # isascii(): isdigit() alone takes digits of other scripts and superscripts too
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
            raise ValueError(f"{text!r} is not a version like {DEFAULT}")
        return cls(*map(int, parts))


@dataclass(frozen=True, slots=True)
class Profile:
    """One protocol version.

    Attributes:
        version: what HELLO answers.
        date: the day it was merged upstream.
        builds: the llama.cpp builds that are known to speak it, first and last; a build or two before and behind may as well.
        news: what it changed, as a few words of Markdown.
        proven: whether recorded bytes of a genuine build of this version hold our codec to it.
    """

    version: Version
    date: str
    builds: str
    news: str
    proven: bool = False

    def __str__(self) -> str:
        """As people read it: the version and its builds, e.g. "3.5.0 (llama.cpp b7205)"."""
        return f"{self.version} (llama.cpp {self.builds})"


V1_0_0 = Version(1, 0, 0)
V2_0_0 = Version(2, 0, 0)
V3_0_0 = Version(3, 0, 0)
V3_5_0 = Version(3, 5, 0)
V3_6_0 = Version(3, 6, 0)
V3_6_1 = Version(3, 6, 1)
V4_0_0 = Version(4, 0, 0)
V4_0_1 = Version(4, 0, 1)
V4_0_2 = Version(4, 0, 2)
V4_0_3 = Version(4, 0, 3)
V5_0_0 = Version(5, 0, 0)
V5_1_0 = Version(5, 1, 0)
V6_0_0 = Version(6, 0, 0)
V7_0_0 = Version(7, 0, 0)
V8_0_0 = Version(8, 0, 0)

DEFAULT = V3_6_1
"""The version of SPEC.md's running text, of the server and of the client; `ops` numbers UNARY's and GLU's kinds as it does."""

PROFILES: dict[Version, Profile] = {
    profile.version: profile
    for profile in (
        Profile(
            V1_0_0,
            "2025-04-18",
            "b5169",
            "HELLO, whose number, 14, never changes; before, nothing told versions apart",
        ),
        Profile(V2_0_0, "2025-04-25", "b5218 to b6341", "SET_TENSOR has no reply any more", proven=True),
        Profile(
            V3_0_0,
            "2025-10-04",
            "b6751 to b7041",
            "several devices: DEVICE_COUNT, and `device` comes first in the six requests about devices",
            proven=True,
        ),
        Profile(
            V3_5_0,
            "2025-11-28",
            "b7205",
            "GRAPH_RECOMPUTE; GRAPH_COMPUTE has no reply any more",
            proven=True,
        ),
        Profile(
            V3_6_0,
            "2025-12-05",
            "of December 2025 to 9 March 2026",
            "GET_ALLOC_SIZE carries the sources",
            proven=True,
        ),
        Profile(
            V3_6_1,
            "2026-03-10",
            "b8487 to b8672",
            "GATED_DELTA_NET; from here on the patch grows when ggml_op does",
            proven=True,
        ),
        Profile(
            V4_0_0,
            "2026-04-15",
            "b8929 to b9568",
            "HELLO carries 24 bytes of transport capabilities each way, for RDMA",
            proven=True,
        ),
        Profile(V4_0_1, "2026-06-09", "b9581 to b9968", "COL2IM_1D: op numbers only", proven=True),
        Profile(V4_0_2, "2026-07-12", "b9976 to b10042", "LIGHTNING_INDEXER: op numbers only", proven=True),
        Profile(
            V4_0_3,
            "2026-07-16",
            "b10054 to b10173",
            "three DSV4_HC ops: op numbers only",
            proven=True,
        ),
        Profile(V5_0_0, "2026-07-29", "b10178 to b10488", "MEMSET_TENSOR", proven=True),
        Profile(
            V5_1_0,
            "2026-08-18",
            "b10499 to b10635",
            "the tensor record's last four bytes are `use_count`, a hint",
            proven=True,
        ),
        Profile(
            V6_0_0,
            "2026-08-27",
            "b10644 to b10970",
            "FREE_BUFFER, BUFFER_CLEAR, INIT_TENSOR and MEMSET_TENSOR have no replies any more",
            proven=True,
        ),
        Profile(
            V7_0_0,
            "2026-09-15",
            "b10985 to b11434",
            "SET_TENSOR has a byte `cache_flag` between tensor and offset",
            proven=True,
        ),
        Profile(
            V8_0_0,
            "2026-10-10",
            "b11548 to b11739",
            "graphs have numbers (`uid`); rows of a tensor (SET_TENSOR_2D, GET_TENSOR_2D); sums of two servers (COMM_INIT …)",
            proven=True,
        ),
    )
}
"""Version to its row, oldest first."""

NEWEST = max(PROFILES)
"""The newest version known, which has every op, kind and type."""

AUTO = (DEFAULT, NEWEST)
"""What a server answers that is not told otherwise: each client in the one of these whose HELLO has the size of the client's."""


def named(version: Version) -> str:
    """Return a version as people read it, with the llama.cpp builds that speak it where it is known."""
    return str(PROFILES.get(version, version))


def builds_of(text: str) -> str | None:
    """Return the llama.cpp builds that speak a version given as text; None for a version that is not upstream's."""
    return next((profile.builds for version, profile in PROFILES.items() if str(version) == text), None)


def present(version: Version, since: Version, until: Version | None = None) -> bool:
    """Whether a version has what these marks stand on."""
    return since <= version and (until is None or version < until)


def accepts(own: Version, server: Version) -> bool:
    """Whether a client of version `own` goes on after a server's HELLO reply: same major, minor not above its own.

    The patch is never compared, though a patch may renumber ops. Source: check_server_version in ggml-rpc.cpp of 3.6.1.
    """
    return server.major == own.major and server.minor <= own.minor
