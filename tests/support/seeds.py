"""The seed of every test with random input: 0, or the value of GGML_RPC_REF_SEED. The header of each test run shows it.

With 0 every run draws the same inputs; with another number all of them draw others, Hypothesis's tests included:

    GGML_RPC_REF_SEED=17 pytest tests/test_codec.py
"""

from __future__ import annotations

import os
from typing import Final

SEED: Final = int(os.environ.get("GGML_RPC_REF_SEED", "0"))
"""The value of GGML_RPC_REF_SEED."""


def seeded(number: int) -> int:
    """Return the seed of one of several random sources: `number` itself where SEED is 0."""
    return number + 1_000_003 * SEED
