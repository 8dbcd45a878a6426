"""Section "comm" for clients: pairs of servers, which came with 8.0.0."""

from __future__ import annotations

from dataclasses import replace

from ggml_rpc_ref.conformance.clients.bench import Bench
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Asked
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import answering
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, require
from ggml_rpc_ref.spec.messages import CommAllreduce, CommInit

WORLD = 2


def _inits(bench: Bench) -> list[Asked]:
    bench.require_two()
    found = list(bench.honest().asked(CommInit))
    if not found:
        raise NotJudged("the client does not send COMM_INIT")
    return found


def _first_pair(bench: Bench) -> tuple[Asked, Asked]:
    """Return the first COMM_INIT of rank 0 and that of rank 1."""
    by_rank = {asked.message.rank: asked for asked in reversed(_inits(bench))}
    if set(by_rank) != {0, 1}:
        raise Broken("ranks 0 and 1", f"COMM_INIT came with {', '.join(map(str, sorted(by_rank)))}")
    return by_rank[0], by_rank[1]


@client_case("comm.pair/honest")
def makes_a_pair(bench: Bench) -> None:
    """COMM_INIT comes with world 2, ranks 0 and 1 on different servers, one port, and for rank 1 a host filled up with zeros."""
    for asked in _inits(bench):
        require(asked.message.world == WORLD, f"a world of {WORLD}", asked.message.world)
    first, second = (asked.message for asked in _first_pair(bench))
    require(first.port == second.port, "one port for both", f"{first.port} and {second.port}")
    host, end, rest = bytes(second.host).partition(b"\0")
    require(bool(host), "the address of rank 0's server for rank 1", "an empty host")
    require(bool(end) and not any(rest), "a host that ends with a zero byte, and zeros after it", bytes(second.host).hex())


@client_case("comm.both-asked/honest")
def both_before_either_reply(bench: Bench) -> None:
    """Both COMM_INIT have come before rank 0's is answered."""
    first, second = _first_pair(bench)
    require(second.at < first.replied, "rank 1's before rank 0's reply", "it came after: rank 0 had given up waiting")


@client_case("comm.refused/answered-0")
def comm_refused(bench: Bench) -> None:
    """Every COMM_INIT is answered with 0: no COMM_ALLREDUCE follows, and the client gets through or says that it can't."""
    _inits(bench)
    run = bench.run(answering("COMM_INIT", lambda _, honest: replace(honest, ok=0)))
    sums = list(run.asked(CommAllreduce))
    require(not sums, "no COMM_ALLREDUCE", f"{len(sums)} came")


@client_case("comm.valid/honest")
def sums_are_valid(bench: Bench) -> None:
    """To honest servers every COMM_ALLREDUCE is of a device with a communicator, and of a tensor that can be added."""
    run = bench.honest()
    require_none("comm.valid", [run])
    if "COMM_ALLREDUCE" not in run.commands():
        raise NotJudged("the client does not send COMM_ALLREDUCE")
