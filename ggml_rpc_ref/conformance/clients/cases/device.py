"""Section "device" for clients: indices, alignment, largest buffers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ggml_rpc_ref.conformance.clients.bench import Bench, require_right
from ggml_rpc_ref.conformance.clients.buffers import placed
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Run
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import EVERY, Change, Script, answering
from ggml_rpc_ref.conformance.verdict import Broken, require
from ggml_rpc_ref.spec.messages import AllocBuffer

USUAL: Final = 32
"""The alignment that an honest server of ours answers."""
ALIGNMENTS: Final = {"1": 1, "128": 128, "4096": 4096}
"""Others that servers may have; our buffers begin at pages."""
DEVICES: Final = {"one": 1, "three": 3}


@client_case("device.named/{}-devices", each=DEVICES)
def names_devices(bench: Bench, count: int) -> None:
    """The server has {} devices: the client names no other, and gets through."""
    run = bench.honest(Script(devices=count))
    require_none("device.named", [run])
    if count > 1 and bench.honest().works:
        require_right(run, f"the server has {count} devices")


@client_case("device.aligned/honest")
def is_aligned(bench: Bench) -> None:
    """The alignment is 32: every tensor of its own, of an honest run, begins at a multiple of it."""
    _require_aligned(bench.honest(), USUAL)


@client_case("device.aligned/alignment-{}", each=ALIGNMENTS)
def is_aligned_to(bench: Bench, alignment: int) -> None:
    """The alignment is {}: every tensor of its own begins at a multiple of it, and the client gets through."""
    run = bench.run(answering("GET_ALIGNMENT", lambda _, honest: replace(honest, alignment=alignment)))
    _require_aligned(run, alignment)
    require_right(run, f"the alignment is {alignment}")


def _require_aligned(run: Run, alignment: int) -> None:
    for place in placed(run):
        if not place.is_view and place.nbytes and place.offset % alignment:
            where = f"{place.name or 'a tensor'} begins at byte {place.offset} of its buffer"
            raise Broken(f"tensors at multiples of {alignment}", where)


@client_case("device.within-max-size/64-kib")
def small_buffers(bench: Bench) -> None:
    """The largest buffer has 64 KiB: the client asks for no larger one, whether it gets through or says that it can't."""
    most = 2**16
    run = bench.run(_small(most))
    larger = list(_larger(run, most))
    require(not larger, f"buffers of at most {most} bytes", f"one of {max(larger, default=0)} was asked for")


def _small(most: int) -> Script:
    def answer(_: Any, honest: Any) -> Any:
        return replace(honest, max_size=most)

    return Script(changes=(Change("GET_MAX_SIZE", EVERY, answer=answer),))


def _larger(run: Run, most: int) -> Iterator[int]:
    yield from (asked.message.size for asked in run.asked(AllocBuffer) if asked.message.size > most)
