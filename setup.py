"""The C kernels, which pyproject.toml has no words for; all else is there."""

import runpy

from setuptools import setup

BUILD = "ggml_rpc_ref/backends/native/build.py"

setup(cffi_modules=[f"{BUILD}:{variant}" for variant in runpy.run_path(BUILD)["VARIANTS"]])
