"""Which backend has which weight: by proportions, as --tensor-split means them, by free memory, or by a function of the name."""

from __future__ import annotations

import contextlib
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.scheduler.lost import Guard
from ggml_rpc_ref.errors import Misuse

Split = Sequence[float] | str | Callable[[str], Device]
"""Proportions, one for each backend; "memory"; or a function from a tensor's name to its backend."""
Where = Callable[[str], int]
"""A tensor's name to the number of its backend."""
MEMORY = "memory"
_LAYER = re.compile(r"blk\.(\d+)\.")


def by_split(
    split: Split,
    backends: Sequence[Device],
    names: Iterable[str],
    guard: Guard = lambda device: contextlib.nullcontext(),
) -> Where:
    """Return which backend each weight goes to.

    Args:
        split: see `Split`.
        backends: by preference; the last is this machine, which has only what proportions or function give it.
        names: of all weights, from which the number of layers follows.
        guard: what to do while a server is asked for its free memory.

    Raises:
        Misuse: for proportions that do not fit the backends, and what is none of the three.
    """
    if callable(split):
        numbers = {id(backend): number for number, backend in enumerate(backends)}

        def chosen(name: str) -> int:
            backend = split(name)
            if id(backend) not in numbers:
                raise Misuse(f"the split puts {name} on {backend!r}, which is not one of the scheduler's backends")
            return numbers[id(backend)]

        return chosen
    # first whether it is a text: compared with one, an array of numpy's is an array of answers
    by_memory = isinstance(split, str) and split == MEMORY
    shares = [_free(b, guard) for b in backends[:-1]] or [1.0] if by_memory else _proportions(split, backends)
    layers = 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)
    return lambda name: _share_of(name, layers, shares)


def _free(backend: Device, guard: Guard) -> float:
    with guard(backend):
        return float(backend.memory().free)


def _proportions(split: object, backends: Sequence[Device]) -> list[float]:
    wanted = f"give proportions, {MEMORY!r}, or a function from a tensor's name to its backend"
    if isinstance(split, str | Mapping) or not isinstance(split, Iterable):
        raise Misuse(f"split = {split!r}: {wanted}")
    try:
        shares = [float(share) for share in split]
    except (TypeError, ValueError, OverflowError):
        raise Misuse(f"split = {split!r}: its proportions must be numbers; {wanted}") from None
    if not len(backends) - 1 <= len(shares) <= len(backends):
        raise Misuse(f"{len(shares)} proportions do not fit {len(backends) - 1} servers' devices, with or without this machine")
    if any(not math.isfinite(share) or share < 0 for share in shares) or not sum(shares) > 0:
        raise Misuse(f"proportions {shares}: each must be 0 or more, and one of them more than 0")
    return shares


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a weight belongs to, None for those around the layers."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def _share_of(name: str, layers: int, shares: Sequence[float]) -> int:
    """Return whose share a weight falls into: layers in order, and what comes after them as one more (load_tensors, llama.cpp)."""
    layer = layer_of(name)
    at = (layers if layer is None else layer) / (layers + 1)
    ends = [end / sum(shares) for end in accumulate(shares)]
    return min(bisect_right(ends, at), max(number for number, share in enumerate(shares) if share > 0))
