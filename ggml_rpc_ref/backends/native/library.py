"""The compiled modules: which of them there are, and which one this processor runs."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, NamedTuple

from ggml_rpc_ref.backends.native.sources import fingerprint
from ggml_rpc_ref.errors import Misuse

DIRECTORY = Path(__file__).parent
"""Where the sources of the kernels lie."""
VARIABLE = "GGML_RPC_REF_NATIVE"
"""Environment variable that names the variant to use instead of the best, or the path of a module compiled apart (`build.py`)."""
X86_64, AARCH64 = ("avx512", "avx2", "plain"), ("dotprod", "neon", "plain")
PROCESSORS = {"x86_64": X86_64, "AMD64": X86_64, "aarch64": AARCH64, "arm64": ("neon", "plain")}
"""Sets of instructions, the fastest first, by Python's name of the processor (`build.py` has the same)."""
VARIANTS = PROCESSORS.get(platform.machine(), ("plain",))
"""Those of this one."""


class Library(NamedTuple):
    """A compiled module.

    Attributes:
        variant: the instructions that it uses.
        ffi: cffi's types.
        lib: its functions.
    """

    variant: str
    ffi: Any
    lib: Any


def kernel_ops() -> tuple[str, ...]:
    """Return the ops that have a kernel: each has a file of its name."""
    return tuple(sorted(path.stem.upper() for path in (DIRECTORY / "kernels").glob("*.c")))


@cache
def load(variant: str) -> Library | str:
    """Return the module of a variant, or in a file, or why it can't be used here."""
    try:
        module = _from_file(Path(variant)) if "/" in variant else import_module(f"ggml_rpc_ref.backends.native._{variant}")
    except ImportError as error:
        built = "/" in variant or any(DIRECTORY.glob(f"_{variant}.*"))
        return f"it can't be loaded ({error})" if built else "not built, because there was no C compiler when this was installed"
    if not _is_of_these_sources(module):
        return "it was compiled from other sources than those that are here: install the package again"
    if not module.lib.runs_here():
        return f"this processor lacks instructions of the variant {variant}"
    return Library(variant, module.ffi, module.lib)


def _is_of_these_sources(module: Any) -> bool:
    """Whether a module was made from the sources beside it; another would be told of nodes in words that it does not know."""
    made_from = getattr(module.lib, "made_from", None)
    return made_from is not None and module.ffi.string(made_from()).decode() == _fingerprint()


@cache
def _fingerprint() -> str:
    return fingerprint(DIRECTORY)


def _from_file(path: Path) -> Any:
    name = path.name.partition(".")[0]
    loader = ExtensionFileLoader(name, str(path))
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    loader.exec_module(module)
    return module


def variants() -> dict[str, Library | str]:
    """Return all variants, each as its module or as why it can't be used here."""
    return {variant: load(variant) for variant in VARIANTS}


def library(variant: str = "") -> Library:
    """Return the module of a variant; "": the one that the environment names, or the fastest that runs here.

    Raises:
        Misuse: where there is none.
    """
    found = _choose(variant or os.environ.get(VARIABLE, ""))
    if isinstance(found, str):
        raise Misuse(found)
    return found


def _choose(wanted: str) -> Library | str:
    if wanted and wanted not in VARIANTS and "/" not in wanted:
        return f"{VARIABLE} names {wanted!r}: choose from {', '.join(VARIANTS)}, or give the path of a module"
    candidates = [load(name) for name in ((wanted,) if wanted else VARIANTS)]
    return next((found for found in candidates if isinstance(found, Library)), candidates[-1])


def unavailable() -> str:
    """Return why no module can be used here; nothing where one can."""
    found = _choose(os.environ.get(VARIABLE, ""))
    return found if isinstance(found, str) else ""


def detail() -> str:
    """Return which variant is used here, and which others could be."""
    used = library().variant
    others = [name for name, found in variants().items() if isinstance(found, Library) and name != used]
    return f"variant {used}, and {' and '.join(others)} if asked for" if others else f"variant {used}"
