"""Which genuine builds there are: one per protocol version, from the table of packages, and forks by their names."""

from __future__ import annotations

from dataclasses import dataclass

from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.spec import versions
from ggml_rpc_ref.spec.packages import FORKS, PACKAGES, Package
from ggml_rpc_ref.spec.versions import PROFILES

DEFAULT = str(versions.DEFAULT)


@dataclass(frozen=True, slots=True)
class Release:
    """What can be asked for, and the package that holds it.

    Attributes:
        name: what it is asked for by: a protocol version, or a fork's name.
        package: its package; None where the index has none.
    """

    name: str
    package: Package | None

    @property
    def protocol(self) -> str:
        """The protocol version."""
        return self.name if self.package is None else str(self.package.speaks)


RELEASES: dict[str, Release] = {
    release.name: release
    for release in (
        *(Release(str(version), PACKAGES.get(version)) for version in PROFILES),
        *(Release(name, package) for name, package in FORKS.items()),
    )
}
"""Name to its row: versions, oldest first, then forks."""


def release(name: str) -> Release:
    """Return the row of a protocol version or fork.

    Raises:
        Misuse: for an unknown name.
    """
    row = RELEASES.get(name)
    if row is None:
        raise Misuse(f"there is no protocol version {name!r}: see the known ones with `ggml-rpc-ref upstream list`")
    return row


def package_of(row: Release) -> Package:
    """Return a row's package.

    Raises:
        Unsupported: where there is none.
    """
    if row.package is None:
        raise Unsupported(
            f"no package of the Python index holds a build of protocol {row.protocol}: see those that exist with "
            "`ggml-rpc-ref upstream list`"
        )
    return row.package
