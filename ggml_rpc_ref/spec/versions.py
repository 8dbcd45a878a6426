"""One row per protocol version, and the rule by which a client accepts a server's version.

A fact that only some versions have carries marks: `since`, the first version that has it, and `until`, the first version without
it. The marks stand on the rows of `messages`, `dtypes`, `opcodes` and `rules`; `present` reads them. No other room names a version.

The wire carries the version and not the build, and builds of one version can differ. A row describes the builds of its version that
were published as a package; where none was, those of its first day.

Source: ggml-rpc.h through the history of ggml-org/ggml and in the sdists 0.3.8 to 0.3.36 of llama-cpp-python; 3.6.1 is proven by
the genuine build.
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
        package: the newest release of llama-cpp-python that speaks it; None where there is none.
        unreleased: why there is none, as half a sentence.
        proven: whether recorded bytes of a genuine build of this version hold our codec to it.
    """

    version: Version
    date: str
    package: str | None = None
    unreleased: str = ""
    proven: bool = False


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
        Profile(V1_0_0, "2025-04-18", unreleased="upstream spoke it for one week in April 2025, without a release"),
        Profile(V2_0_0, "2025-04-25", "0.3.16"),
        Profile(
            V3_0_0,
            "2025-10-04",
            unreleased="upstream spoke it in October and November 2025, between 0.3.16 and 0.3.17",
        ),
        Profile(V3_5_0, "2025-11-28", unreleased="upstream spoke it for one week around 1 December 2025, without a release"),
        Profile(V3_6_0, "2025-12-05", unreleased="upstream spoke it until 10 March 2026, between 0.3.16 and 0.3.17"),
        Profile(V3_6_1, "2026-03-10", "0.3.20", proven=True),
        Profile(V4_0_0, "2026-04-15", "0.3.28"),
        Profile(V4_0_1, "2026-06-09", "0.3.33"),
        Profile(V4_0_2, "2026-07-12", "0.3.34"),
        Profile(V4_0_3, "2026-07-16", unreleased="upstream spoke it for two weeks in July 2026, between 0.3.34 and 0.3.35"),
        Profile(V5_0_0, "2026-07-29", "0.3.35"),
        Profile(V5_1_0, "2026-08-18", unreleased="upstream spoke it for one week in August 2026, between 0.3.35 and 0.3.36"),
        Profile(V6_0_0, "2026-08-27", unreleased="upstream spoke it until 15 September 2026, between 0.3.35 and 0.3.36"),
        Profile(V7_0_0, "2026-09-15", "0.3.36"),
        Profile(V8_0_0, "2026-10-10", unreleased="it is newer than 0.3.36, the last release looked at"),
    )
}
"""Version to its row, oldest first."""

NEWEST = max(PROFILES)
"""The newest version, which has every op, kind and type."""


def present(version: Version, since: Version, until: Version | None = None) -> bool:
    """Whether a version has what these marks stand on."""
    return since <= version and (until is None or version < until)


def accepts(own: Version, server: Version) -> bool:
    """Whether a client of version `own` goes on after a server's HELLO reply: same major, minor not above its own.

    The patch is never compared, though a patch may renumber ops. Source: check_server_version in ggml-rpc.cpp of 3.6.1.
    """
    return server.major == own.major and server.minor <= own.minor
