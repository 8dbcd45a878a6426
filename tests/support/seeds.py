"""The seed of every test that draws what it tries: 0, or what GGML_RPC_REF_SEED says. The header of each run shows it.

With 0 the tests try the same things each time. Another number makes all of them try others, Hypothesis's too:

    GGML_RPC_REF_SEED=17 pytest tests/test_codec.py
"""

from __future__ import annotations

import os
from typing import Final

SEED: Final = int(os.environ.get("GGML_RPC_REF_SEED", "0"))
"""What the environment says."""


def seeded(number: int) -> int:
    """Return the seed of one of several draws, itself where nothing else is asked for."""
    return number + 1_000_003 * SEED
