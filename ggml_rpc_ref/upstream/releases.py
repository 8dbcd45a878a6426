"""Which release of llama-cpp-python speaks which protocol version: the table behind every `upstream` command.

Source: the version constants in ggml-rpc.h of the sdists 0.3.8 to 0.3.36.
"""

from __future__ import annotations

from dataclasses import dataclass

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec import versions

PACKAGE = "llama-cpp-python"
DEFAULT = str(versions.DEFAULT)


@dataclass(frozen=True, slots=True)
class Release:
    """One protocol version and the newest release of llama-cpp-python that speaks it.

    Attributes:
        protocol: the version.
        package_version: the release; None where there is none.
        why: why there is none, as half a sentence.
    """

    protocol: str
    package_version: str | None
    why: str = ""


RELEASES: dict[str, Release] = {
    row.protocol: row
    for row in (
        Release("1.0.0", None, "upstream spoke it for one week in April 2025, and nothing was released in it"),
        Release("2.0.0", "0.3.16"),
        Release("3.0.0", None, "upstream spoke it in October and November 2025, between the releases 0.3.16 and 0.3.17"),
        Release("3.5.0", None, "upstream spoke it for one week around 1 December 2025, and nothing was released in it"),
        Release("3.6.0", None, "upstream spoke it until 10 March 2026, between the releases 0.3.16 and 0.3.17"),
        Release("3.6.1", "0.3.20"),
        Release("4.0.0", "0.3.28"),
        Release("4.0.1", "0.3.33"),
        Release("4.0.2", "0.3.34"),
        Release("4.0.3", None, "upstream spoke it for two weeks in July 2026, between the releases 0.3.34 and 0.3.35"),
        Release("5.0.0", "0.3.35"),
        Release("5.1.0", None, "upstream spoke it for one week in August 2026, between the releases 0.3.35 and 0.3.36"),
        Release("6.0.0", None, "upstream spoke it until 15 September 2026, between the releases 0.3.35 and 0.3.36"),
        Release("7.0.0", "0.3.36"),
        Release("8.0.0", None, "it is newer than 0.3.36, the last release looked at"),
    )
}


def release(protocol: str) -> Release:
    """Return the row of a protocol version.

    Raises:
        Misuse: for an unknown version.
        Unsupported: for one that no release speaks.
    """
    row = RELEASES.get(protocol)
    if row is None:
        raise Misuse(f"there is no protocol version {protocol!r}: see the known ones with `ggml-rpc-ref upstream list`")
    if row.package_version is None:
        raise Unsupported(
            f"no release of {PACKAGE} speaks protocol {protocol}: {row.why}; see those that exist with `ggml-rpc-ref upstream list`"
        )
    return row
