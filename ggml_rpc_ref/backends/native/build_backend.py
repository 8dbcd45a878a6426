"""The build backend that pyproject.toml names: setuptools' own, with the C kernels, for which pyproject.toml has no words.

It is run in the directory of pyproject.toml. A class of this kind is setuptools' documented way to give `setup` an argument without
a setup.py (its guide "Build System Support", on in-tree backends).
"""

from __future__ import annotations

import runpy

from setuptools import setup
from setuptools.build_meta import _BuildMetaBackend

BUILD = "ggml_rpc_ref/backends/native/build.py"


class Backend(_BuildMetaBackend):  # type: ignore[misc]
    """Setuptools' build backend, which compiles each variant of the kernels as well."""

    def run_setup(self, setup_script: str = "setup.py") -> None:
        """Run what a setup.py would; the arguments are in sys.argv."""
        setup(cffi_modules=[f"{BUILD}:{variant}" for variant in runpy.run_path(BUILD)["VARIANTS"]])


backend = Backend()
