"""Requirements of the machine: without one a test skips with a reason, or fails where GGML_RPC_REF_REQUIRE_UPSTREAM is set.

CI sets GGML_RPC_REF_REQUIRE_UPSTREAM=1 (it has a C compiler and a genuine build), so that no test can vanish there unseen.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "GGML_RPC_REF_REQUIRE_UPSTREAM"


def lacking(what: str) -> NoReturn:
    """Skip the test, or fail it where nothing may be lacking."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED} is set, but {what}", pytrace=False)
    pytest.skip(what)


def compiler(*names: str) -> str:
    """Return the path of the first compiler found of these."""
    for name in names:
        if found := shutil.which(name):
            return found
    lacking(f"this machine has no {' and no '.join(names)}")
