"""One row per protocol version, and the rule by which a client accepts a server's.

Source: ggml-rpc.h through the history of ggml-org/ggml; 3.6.1 proven by the genuine build.
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
            ValueError: for anything but three numbers of one byte each, separated by dots.
        """
        parts = text.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
            raise ValueError(f"{text!r} is not a version like 3.6.1")
        return cls(*map(int, parts))


@dataclass(frozen=True, slots=True)
class Profile:
    """What one protocol version fixes beside the layouts of its messages.

    Attributes:
        version: what HELLO answers.
        date: when it was merged upstream.
        ops: name of its op table in `opcodes`; "" where the enum drifted inside the version.
        type_count: the first ggml_type id that its builds don't know (the latest builds of that version).
        proven: whether recorded bytes of a genuine build of this version hold our codec to it.
    """

    version: Version
    date: str
    ops: str
    type_count: int
    proven: bool = False


V1_0_0 = Version(1, 0, 0)
V2_0_0 = Version(2, 0, 0)
V3_0_0 = Version(3, 0, 0)
V3_5_0 = Version(3, 5, 0)
V3_6_0 = Version(3, 6, 0)
V3_6_1 = Version(3, 6, 1)
V4_0_0 = Version(4, 0, 0)
V5_0_0 = Version(5, 0, 0)
V5_1_0 = Version(5, 1, 0)
V6_0_0 = Version(6, 0, 0)
V7_0_0 = Version(7, 0, 0)
V8_0_0 = Version(8, 0, 0)

DEFAULT = V3_6_1
"""The profile of SPEC.md's running text, of the server and of the client."""

PROFILES: dict[Version, Profile] = {
    profile.version: profile
    for profile in (
        Profile(V1_0_0, "2025-04-18", "1.0.0", 39),
        Profile(V2_0_0, "2025-04-25", "", 40),
        Profile(V3_0_0, "2025-10-04", "3.0.0", 40),
        Profile(V3_5_0, "2025-11-28", "3.5.0", 40),
        Profile(V3_6_0, "2025-12-05", "3.5.0", 40),
        Profile(V3_6_1, "2026-03-10", "3.6.1", 41, proven=True),
        Profile(V4_0_0, "2026-04-15", "3.6.1", 42),
        Profile(Version(4, 0, 1), "2026-06-09", "4.0.1", 43),
        Profile(Version(4, 0, 2), "2026-07-12", "4.0.2", 43),
        Profile(Version(4, 0, 3), "2026-07-16", "4.0.3", 43),
        Profile(V5_0_0, "2026-07-29", "4.0.3", 43),
        Profile(V5_1_0, "2026-08-18", "4.0.3", 43),
        Profile(V6_0_0, "2026-08-27", "4.0.3", 43),
        Profile(V7_0_0, "2026-09-15", "4.0.3", 43),
        Profile(V8_0_0, "2026-10-10", "4.0.3", 43),
    )
}


def accepts(own: Version, server: Version) -> bool:
    """Whether a client of version `own` goes on after a server's HELLO reply: same major, minor not above its own.

    The patch is never compared, though a patch may renumber ops. Source: check_server_version in ggml-rpc.cpp of 3.6.1.
    """
    return server.major == own.major and server.minor <= own.minor
