"""Inputs worth trying on GATED_DELTA_NET."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str, size: int, heads: int, tokens: int, sequences: int, *, vector: bool = False, few: tuple[int, int] | None = None,
    permuted: bool = False, slots: int = 0, snapshots: int = 0,
) -> Case:  # fmt: skip
    """Return a case; few: heads and sequences of q and k; permuted: heads and tokens of q, k and v change places in memory.

    slots and snapshots: K as the two later meanings have it.
    """

    def stream(count: int, batch: int, fill: str) -> Operand:
        nb: Quad = (4, 4 * size * tokens, 4 * size, 4 * size * tokens * count)
        return Operand("F32", (size, count, tokens, batch), nb if permuted else None, fill)

    key = stream(*(few or (heads, sequences)), f"normal:{size**-0.5}")
    gate = Operand("F32", (size if vector else 1, heads, tokens, sequences), fill="uniform:-2:0")
    beta = Operand("F32", (1, heads, tokens, sequences), fill="uniform:0:1")
    state = Operand("F32", (size * size * heads, sequences))
    if slots:
        state = Operand("F32", (size * size * heads, slots, sequences))
    elif snapshots:
        state = Operand("F32", (size, size, heads, sequences))
    dst = Operand("F32", (size * heads, (tokens + max(1, slots, snapshots) * size) * sequences))
    params = {"snapshots": snapshots} if snapshots else {}
    return Case(name, dst, (key, key, stream(heads, sequences, "normal"), gate, beta, state), params)


def cases() -> Iterator[Case]:
    """Before there were snapshots, when the state had slots for them, and since then."""
    yield from until("GATED_DELTA_NET.state-slots", _without_snapshots())
    yield from since("GATED_DELTA_NET.state-slots", _later("slots"))
    yield from since("GATED_DELTA_NET.snapshots", _later("snapshots"))


def _later(word: str) -> Iterator[Case]:
    """One snapshot and several, as many as there are tokens, more, none taken."""
    case = partial(_of_later, word)
    for count, vector, permuted in product((1, 3), (False, True), (False, True)):
        words = f"{count}-{word}" + ("-vector-gate" if vector else "") + ("-permuted" if permuted else "")
        yield case(count, words, 16, 4, 5, 2, vector=vector, permuted=permuted)
    yield case(4, f"{word}-for-each-token", 8, 2, 4, 1)
    yield case(5, f"more-{word}-than-tokens", 8, 2, 2, 3)
    yield case(2, f"{word}-shared-heads", 16, 6, 3, 1, few=(2, 1))
    yield case(1, f"{word}-no-tokens", 8, 2, 0, 2)


def _of_later(word: str, count: int, *args: Any, **kwargs: Any) -> Case:
    return _case(*args, **kwargs, slots=count * (word == "slots"), snapshots=count * (word == "snapshots"))


def _without_snapshots() -> Iterator[Case]:
    """One gate and a gate per key, head sizes, heads and sequences shared, permuted memory, no tokens."""
    for vector, permuted in product((False, True), (False, True)):
        words = ("vector-gate" if vector else "one-gate") + ("-permuted" if permuted else "")
        yield _case(words, 16, 4, 5, 2, vector=vector, permuted=permuted)
        yield _case(f"{words}-shared-heads", 16, 6, 3, 1, vector=vector, permuted=permuted, few=(2, 1))
        yield _case(f"{words}-shared-sequences", 8, 2, 3, 4, vector=vector, permuted=permuted, few=(2, 2))
    for size in (1, 7, 33, 64):
        yield _case(f"size-{size}", size, 2, 3, 1)
        yield _case(f"size-{size}-vector-gate", size, 2, 3, 1, vector=True)
    yield _case("one-token", 32, 4, 1, 1)
    yield _case("many-tokens", 16, 1, 67, 1)
    yield _case("heads-that-do-not-divide", 8, 5, 3, 1, few=(2, 1))
    yield _case("no-tokens", 8, 2, 0, 2)
