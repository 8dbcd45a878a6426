"""Nodes that do not fit their op, op by op: a good one is computed first, and each of those made from it by one change is refused.

The nodes are those of `ops.cases.unfit`; what is wrong with each is said in the op's section of SPEC.md. All of their memory is
zero, which is a good index for every op that takes indices.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import ALIGNMENT, MARGIN, UID, nbytes, strides, words
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.unfit import UNFIT_OPS, in_words, unfit
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, MAX_OP_PARAMS, MAX_SRC, BufferClear, GraphCompute, RpcTensor, has_field


@case(
    "graph.shape/{}",
    each={f"of-{op.lower().replace('_', '-')}": op for op in UNFIT_OPS},
    may_crash=True,
    since=marks.op_since,
)
def nodes_that_do_not_fit(subject: Subject, op: str) -> None:
    """Nodes of op {} whose dimensions, strides or parameters do not fit it, each a good one but for one change: refused."""
    lacking, asked = [], 0
    for good, rows in groupby(unfit(op, subject.facts.version), key=lambda one: one.good):
        asked += 1
        if not _computes(subject, op, good):
            lacking.append(good.id)
            continue
        for one in rows:
            peer = subject.connect()
            try:
                peer.refuses(_placed(peer, op, one.node))
            except Broken as broken:
                raise Broken(
                    f"{broken.expected} for {op} with {in_words(one.row)}", broken.actual, verdict=broken.verdict
                ) from None
            peer.close()
    if lacking:
        which = "" if len(lacking) == asked else f" with the operands of {', '.join(lacking)}"
        raise NotJudged(f"it refuses {op}{which}, as a server may (graph.op-supported)")


def _computes(subject: Subject, op: str, good: Case) -> bool:
    """Whether the server computes the node from which the others are made."""
    peer = subject.connect()
    try:
        peer.tell(_placed(peer, op, good))
    except Broken as broken:
        if not broken.refused:
            raise
        return False
    finally:
        peer.close()
    return True


def _placed(peer: Peer, op: str, node: Case) -> GraphCompute:
    """Return the graph of one node, whose operands lie in a new buffer of zeros."""
    operands = {f"src{slot}": operand for slot, operand in enumerate(node.src) if operand is not None} | {"dst": node.dst}
    shapes = {name: _tensor(operand) for name, operand in operands.items()}
    owners = {name: operand.alias or name for name, operand in operands.items()}
    starts, end = {}, MARGIN
    for name, owner in owners.items():
        if name == owner:
            starts[name] = end
            end += -(-nbytes(shapes[name]) // ALIGNMENT) * ALIGNMENT
    buffer = peer.alloc(end + MARGIN)
    peer.takes(BufferClear(remote_ptr=buffer.remote_ptr, value=0))
    ids = {name: number for number, name in enumerate(operands, 0x1000)}
    tensors = {
        name: replace(
            shape, id=ids[name], buffer=buffer.remote_ptr, data=buffer.base + starts[owners[name]] + operands[name].offset
        )
        for name, shape in shapes.items()
    }
    tensors["dst"] = replace(
        tensors["dst"],
        op=peer.subject.op(op),
        op_params=words(ops_of(peer.version)[op].pack(node.params), MAX_OP_PARAMS),
        flags=FLAG_COMPUTE,
        src=tuple(ids.get(f"src{slot}", 0) for slot in range(MAX_SRC)),
        view_src=ids[node.dst.alias] if node.dst.alias else 0,
        view_offs=node.dst.offset,
    )
    uid = UID if has_field(GraphCompute, "uid", peer.version) else 0
    return GraphCompute(uid=uid, nodes=(ids["dst"],), tensors=tuple(tensors.values()))


def _tensor(operand: Operand) -> RpcTensor:
    nb = strides(operand.dtype, operand.quad) if operand.nb is None else operand.nb
    return RpcTensor(type=BY_NAME[operand.dtype].number, ne=operand.quad, nb=nb)
