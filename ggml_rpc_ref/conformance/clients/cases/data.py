"""Section "data" for clients: ranges, the hash step, copies that the server can't make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ggml_rpc_ref.conformance.clients.bench import Bench, require_right
from ggml_rpc_ref.conformance.clients.case import client_case
from ggml_rpc_ref.conformance.clients.heard import Asked, Conversation, Run
from ggml_rpc_ref.conformance.clients.refused import require_none
from ggml_rpc_ref.conformance.clients.script import Script, answering
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, require
from ggml_rpc_ref.spec.messages import SetTensor, SetTensorHash

KEPT_ABOVE: Final = 10 * 2**20
"""Bytes: servers keep what is larger (HASH_THRESHOLD in ggml-rpc.cpp)."""
WITH_CACHE: Final = Script(has_cache=True)


@client_case("data.valid/honest")
def ranges_are_valid(bench: Bench) -> None:
    """To an honest server every range, row and copy lies inside its tensor."""
    require_none("data.valid", [bench.honest()])


# ------------------------------------------------------------------------------------------------------------- the hash


@client_case("data.hash-asked/no-cache")
def without_cache(bench: Bench) -> None:
    """A server without a cache answers 0: the data follow by SET_TENSOR, to the same place, and have the hash that was asked."""
    _require_sent(_asked_hash(bench.honest()))


@client_case("data.hash-asked/empty-cache")
def empty_cache(bench: Bench) -> None:
    """A server with a cache that has not got the data answers 0: they follow, have the hash that was asked, and are right."""
    _require_sent(_asked_hash(bench.honest(WITH_CACHE)))


@client_case("data.hash-asked/full-cache")
def full_cache(bench: Bench) -> None:
    """A server that has the data answers 1: the client need not send them, and gets through."""
    _asked_hash(bench.honest(WITH_CACHE))  # which fills it
    run = bench.run(WITH_CACHE)
    hits = [asked.reply.result for asked in run.asked(SetTensorHash)]
    require(1 in hits, "the hash of data that it had sent", f"none of {len(hits)} hashes was one of those")
    _require_sent(run)
    require_right(run, "the server had the data already")


@client_case("data.hash-asked/answered-0-again")
def never_found(bench: Bench) -> None:
    """Every SET_TENSOR_HASH is answered with 0 though the server has the data: they follow, and the client gets through."""
    run = bench.run(answering("SET_TENSOR_HASH", lambda _, honest: replace(honest, result=0)))
    _require_sent(run)
    require_right(run, "the server never has the data")


def _asked_hash(run: Run) -> Run:
    if "SET_TENSOR_HASH" not in run.commands():
        raise NotJudged("the client does not send SET_TENSOR_HASH")
    return run


def _require_sent(run: Run) -> None:
    for talk in run.conversations:
        for number, asked in enumerate(talk.asked):
            if asked.cls is SetTensorHash and asked.reply is not None and asked.reply.result == 0:
                _require_follows(talk, number, asked)


def _require_follows(talk: Conversation, number: int, asked: Asked) -> None:
    sent = next((later for later in talk.asked[number + 1 :] if later.data_hash is not None), None)
    if sent is None:
        raise Broken("the data by SET_TENSOR", "none came after SET_TENSOR_HASH had been answered with 0")
    said: Any = asked.message
    require(_place(sent) == _place(asked), "the data for the same place", "a SET_TENSOR for another one")
    require(sent.data_hash == said.hash, f"data of the hash {said.hash:#018x}", f"data of {sent.data_hash or 0:#018x}")


def _place(asked: Asked) -> tuple[int, int, int]:
    tensor = asked.message.tensor
    return (tensor.buffer, tensor.data, asked.message.offset)


@client_case("data.hash-large/above-10-mib")
def large_alone(bench: Bench) -> None:
    """In an honest run a SET_TENSOR that SET_TENSOR_HASH came before has more than 10 MiB."""
    small = [asked.size for asked in _asked_hash(bench.honest()).asked(SetTensor) if asked.data_hash is not None]
    least = min(small, default=KEPT_ABOVE + 1)
    require(least > KEPT_ABOVE, f"hashes of more than {KEPT_ABOVE} bytes", f"one of {least}")


# ---------------------------------------------------------------------------------------------------------------- copies


@client_case("data.copy-refused/answered-0")
def copy_refused(bench: Bench) -> None:
    """Every COPY_TENSOR is answered with 0: the client does it itself, or says that it can't."""
    run = bench.run(answering("COPY_TENSOR", lambda _, honest: replace(honest, result=0)))
    for talk, violation in run.violations():
        raise Broken("requests that a server takes", f"on connection {talk.number} it had to refuse: {violation}")
    if run.ended.status == 0 and not any(_moved_instead(run, asked) for asked in run.asked() if asked.command == "COPY_TENSOR"):
        raise Broken("the bytes read and written, or an error", "the client ended as though they had been copied")


def _moved_instead(run: Run, copy: Asked) -> bool:
    """Whether the copy's destination was written by the client afterwards."""
    later = [asked for asked in run.asked(SetTensor) if asked.connection == copy.connection and asked.at > copy.at]
    return any(asked.message.tensor.data == copy.message.dst.data for asked in later)
