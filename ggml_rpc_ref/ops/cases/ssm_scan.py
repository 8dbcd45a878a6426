"""Inputs worth trying on SSM_SCAN."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str, d_state: int, dim: int, heads: int, groups: int, tokens: int, sequences: int, *, scalar: bool = True,
    slots: int | None = None, dt: str = "normal", ids: str | None = None, apart: bool = False, snapshots: int = 0,
) -> Case:  # fmt: skip
    """Return a case; scalar: A has one row (Mamba-2); apart: gaps between tokens of x, B and C; snapshots: K of later versions."""

    def per_token(width: int, rows: int) -> Operand:
        nb1 = 4 * width
        gapped: Quad = (4, nb1, nb1 * rows + 12, (nb1 * rows + 12) * tokens + 20)
        return Operand("F32", (width, rows, tokens, sequences), gapped if apart else None)

    slots = slots or sequences
    sources = (
        Operand("F32", (d_state, dim, heads, slots)),
        per_token(dim, heads),
        Operand("F32", (heads, tokens, sequences), fill=dt),
        Operand("F32", (1 if scalar else d_state, heads), fill="uniform:-2:0"),
        per_token(d_state, groups),
        per_token(d_state, groups),
        Operand("I32", (sequences,), fill=ids or f"index:{slots}"),
    )
    size = dim * heads * tokens * sequences + max(1, snapshots) * d_state * dim * heads * sequences
    return Case(name, Operand("F32", (size,)), sources, {"snapshots": snapshots} if snapshots else {})


def cases() -> Iterator[Case]:
    """Before there were snapshots, and since then."""
    yield from until("SSM_SCAN.groups", _groups_in_turn())
    yield from until("SSM_SCAN.snapshots", _without_snapshots())
    yield from since("SSM_SCAN.snapshots", _with_snapshots())


def _groups_in_turn() -> Iterator[Case]:
    """Two groups, which take heads in turn."""
    yield _case("groups-in-turn", 16, 3, 6, 2, 5, 2)
    yield _case("groups-in-turn-mamba-1", 16, 3, 4, 2, 3, 2, scalar=False, apart=True)


def _with_snapshots() -> Iterator[Case]:
    """One and several, as many as there are tokens, more; Mamba-1."""
    yield _case("one-snapshot", 16, 3, 4, 2, 5, 2, snapshots=1)
    yield _case("one-snapshot-mamba-1", 16, 3, 4, 2, 5, 2, scalar=False, snapshots=1)
    yield _case("three-snapshots", 16, 3, 4, 2, 5, 2, snapshots=3)
    yield _case("three-snapshots-slots", 8, 2, 2, 1, 4, 3, slots=5, snapshots=3)
    yield _case("a-snapshot-for-each-token", 33, 2, 4, 1, 4, 1, snapshots=4)
    yield _case("more-snapshots-than-tokens", 8, 2, 2, 1, 2, 2, snapshots=5)
    yield _case("snapshots-tokens-apart", 16, 3, 4, 2, 3, 2, apart=True, snapshots=2)


def _without_snapshots() -> Iterator[Case]:
    """Mamba-1 and Mamba-2, groups, sequences and slots, state sizes around vector widths, large and small dt."""
    yield _case("mamba-1", 16, 1, 9, 1, 5, 2, scalar=False)
    yield from since("SSM_SCAN.groups", [_case("mamba-1-wide", 16, 3, 4, 2, 5, 2, scalar=False)])
    yield from since("SSM_SCAN.groups", [_case("mamba-2", 64, 4, 6, 2, 5, 2)])
    for d_state in (1, 7, 33, 129):
        yield _case(f"state-{d_state}", d_state, 3, 4, 4, 3, 1)
    yield _case("one-token", 16, 8, 4, 1, 1, 3)
    yield _case("many-tokens", 8, 2, 2, 1, 67, 1)
    yield _case("more-slots", 8, 2, 2, 1, 3, 3, slots=7)
    yield _case("one-slot-for-all", 8, 2, 2, 1, 3, 3, slots=4, ids="values:3,3,3")
    yield _case("slots-in-order-reversed", 8, 2, 2, 1, 3, 3, ids="values:2,1,0")
    yield _case("dt-large-and-small", 8, 2, 32, 1, 3, 1, dt="uniform:-40:40")
    yield from since("SSM_SCAN.groups", [_case("tokens-apart", 16, 3, 4, 2, 3, 2, apart=True)])
    yield from since("SSM_SCAN.groups", [_case("mamba-1-tokens-apart", 16, 3, 4, 2, 3, 2, scalar=False, apart=True)])
