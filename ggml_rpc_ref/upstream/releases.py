"""Which release of llama-cpp-python speaks which protocol version, from the table of versions."""

from __future__ import annotations

from dataclasses import dataclass

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec import versions
from ggml_rpc_ref.spec.versions import PROFILES

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
    str(version): Release(str(version), profile.package, profile.unreleased) for version, profile in PROFILES.items()
}
"""Protocol version, as text, to its row."""


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
