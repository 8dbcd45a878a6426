"""FNV-1a 64: published vectors, and the fast form held to the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggml_rpc_ref.protocol import fnv
from ggml_rpc_ref.protocol.fnv import BLOCK, LANE, SHORT, Fnv1a, definition, fnv1a
from tests.support.requirements import lacking

# from the tables of the FNV reference code (http://www.isthe.com/chongo/tech/comp/fnv/, draft-eastlake-fnv appendix C)
PUBLISHED = [
    (b"", 0xCBF29CE484222325),
    (b"a", 0xAF63DC4C8601EC8C),
    (b"b", 0xAF63DF4C8601F1A5),
    (b"foobar", 0x85944171F73967E8),
]


@pytest.fixture(params=["C", "numpy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with fnv.c, and without."""
    if request.param == "numpy":
        monkeypatch.setattr(fnv, "compiled", None)
    elif fnv.compiled is None:
        lacking("fnv.c was not built")
    return str(request.param)


@pytest.mark.parametrize(("data", "wanted"), PUBLISHED, ids=lambda value: repr(value) if isinstance(value, bytes) else "")
def test_published_vectors(data: bytes, wanted: int) -> None:
    assert definition(data) == wanted
    assert fnv1a(data) == wanted


def some_bytes(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


SIZES = [SHORT, SHORT + 1, SHORT + LANE, SHORT + 2 * LANE - 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK + SHORT + LANE + 1]


@pytest.mark.parametrize("size", SIZES)
def test_lanes_agree_with_the_loop(size: int) -> None:
    data = some_bytes(size, seed=size)
    assert fnv1a(data) == definition(data)


@pytest.mark.parametrize("byte", [0x00, 0x25, 0xFF])
def test_equal_bytes_agree_with_the_loop(byte: int) -> None:
    data = bytes([byte]) * (SHORT + 3 * LANE + 5)
    assert fnv1a(data) == definition(data)


def test_pieces_hash_as_the_whole(way: str) -> None:
    @settings(max_examples=30)
    @given(st.binary(max_size=60), st.integers(SHORT - 3, SHORT + 600), st.integers(0, 2**32))
    def check(head: bytes, size: int, seed: int) -> None:
        tail = some_bytes(size, seed)
        assert Fnv1a().update(head).update(tail).value == definition(head + tail)

    check()


def test_every_byte_counts() -> None:
    data = bytearray(some_bytes(SHORT + LANE))
    before = fnv1a(data)
    for place in (0, 1, LANE - 1, LANE, SHORT, len(data) - 1):
        data[place] ^= 1
        assert fnv1a(data) != before, place
        data[place] ^= 1


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer(make) -> None:  # type: ignore[no-untyped-def]
    data = some_bytes(SHORT + LANE + 1)
    assert fnv1a(make(data)) == definition(data)
