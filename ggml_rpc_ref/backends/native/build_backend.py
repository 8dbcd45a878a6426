"""The build backend that pyproject.toml names: setuptools' own, with the C kernels, for which pyproject.toml has no words.

It is run in the directory of pyproject.toml. A class of this kind is setuptools' documented way to give `setup` an argument without
a setup.py (its guide "Build System Support", on in-tree backends).
"""

from __future__ import annotations

import runpy
from copy import copy
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.build_meta import _BuildMetaBackend
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

BUILD = "ggml_rpc_ref/backends/native/build.py"


class BuildCommon(build_clib):  # type: ignore[misc]
    """Compiles what all variants share; where that fails they can't be linked, and the package installs without them."""

    def run(self) -> None:
        """Compile, and tell what went wrong."""
        try:
            super().run()
        except (BaseError, CCompilerError) as error:
            self.warn(f"the C kernels are not built: {error}")


class BuildEach(build_ext):  # type: ignore[misc]
    """Compiles each module in a directory of its own: variants are made from the same sources, side by side, and setuptools names
    objects by the source alone."""

    def build_extension(self, ext: Any) -> None:
        """Compile a module."""
        own = copy(self)
        own.build_temp = str(Path(self.build_temp) / ext.name)
        super(BuildEach, own).build_extension(ext)


class Backend(_BuildMetaBackend):  # type: ignore[misc]
    """Setuptools' build backend, which compiles each variant of the kernels as well."""

    def run_setup(self, setup_script: str = "setup.py") -> None:
        """Run what a setup.py would; the arguments are in sys.argv."""
        build = runpy.run_path(BUILD)
        setup(
            cffi_modules=[f"{BUILD}:{name}" for name in (*build["VARIANTS"], "fnv", "again_builder")],
            libraries=[build["common"]()],
            cmdclass={"build_clib": BuildCommon, "build_ext": BuildEach},
            options={"build_ext": {"parallel": True}},
        )


backend = Backend()
