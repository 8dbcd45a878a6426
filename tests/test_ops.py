"""Every op's oracle against what the genuine 3.6.1 server computed, and against nodes that no op can mean.

The expected bytes are in vectors/upstream-3.6.1-…/ops/, written by vectors/tools/record_ops.py. `pytest -k RMS_NORM` runs one op.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref import upstream
from ggml_rpc_ref.blocks import CAN_DEQUANTISE
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.golden import operands
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import BLOCKS, MAX_SRC, WRITABLE_BLOCKS, Op
from ggml_rpc_ref.ops.shared import slabs
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME, types
from ggml_rpc_ref.tensor import PlainStorage, Tensor, contiguous_nb
from tests.support.each import each
from tests.support.seeds import SEED
from vectors.tools import record_ops

VECTORS = Path(__file__).parents[1] / "vectors"
WITNESS = VECTORS / "upstream-3.6.1-llama-cpp-python-0.3.20" / "ops"

# --- the witness --------------------------------------------------------------------------------------------------------


@cache
def recorded(name: str) -> dict[str, Any]:
    """Return an op's file."""
    document: dict[str, Any] = json.loads((WITNESS / f"{name.lower()}.json").read_text())
    return document


def owner_bytes(tensor: Tensor) -> bytes:
    """Return what lies between the guard bytes of the memory that a tensor owns."""
    assert isinstance(tensor.storage, PlainStorage)
    return tensor.storage.data[recipes.GUARD : len(tensor.storage.data) - recipes.GUARD].tobytes()


def with_bytes(tensor: Tensor, content: bytes) -> Tensor:
    """Return the same tensor in other memory, filled with recorded bytes between guard bytes."""
    guard = bytes([recipes.GUARD_BYTE]) * recipes.GUARD
    return replace(tensor, storage=PlainStorage(np.frombuffer(guard + content + guard, np.uint8)))


def assert_same_inputs(entry: dict[str, Any], case: Case, dst: Tensor, src: tuple[Tensor | None, ...]) -> None:
    """Fail where the recorded case was another one: geometry, or the input bytes."""
    assert entry["id"] == case.id
    for described, tensor in zip([entry["dst"], *entry["src"]], [dst, *src], strict=True):
        if tensor is None:
            assert described is None
            continue
        assert described["type"] == tensor.dtype.name
        assert (tuple(described["ne"]), tuple(described["nb"])) == (tensor.ne, tensor.nb)
        if "sha256" in described:
            assert described["sha256"] == hashlib.sha256(owner_bytes(tensor)).hexdigest(), "these are other input bytes"


@pytest.mark.parametrize("name", [name for name in OPS if cases_of(name)])
def test_oracle_gives_the_recorded_results(name: str) -> None:
    pairs = zip(cases_of(name), recorded(name)["cases"], strict=True)
    each(oracle_gives_what_is_recorded, ((case.id, (OPS[name], case, entry)) for case, entry in pairs))


def oracle_gives_what_is_recorded(op: Op, case: Case, entry: dict[str, Any]) -> None:
    dst, src = recipes.build(op.name, case)
    assert_same_inputs(entry, case, dst, src)
    op_params = op.pack(case.params)
    assert entry["op_params"] == op_params.hex()
    expected = {name: zlib.decompress(base64.b64decode(text)) for name, text in entry["expected"].items()}
    assert_result(op, case, dst, src, expected)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_oracle_gives_the_same_part_by_part(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    """Big tensors are computed in slabs; here every slab is a row or two, so that the seams are in the cases' small ones."""
    monkeypatch.setattr(slabs, "SLAB_BYTES", 64)
    for case, entry in zip(cases_of(op.name), recorded(op.name)["cases"] if cases_of(op.name) else [], strict=True):
        expected = {name: zlib.decompress(base64.b64decode(text)) for name, text in entry["expected"].items()}
        try:
            assert_result(op, case, *recipes.build(op.name, case), expected)
        except AssertionError as error:
            raise AssertionError(f"{op.name}-{case.id}: {error}") from error


def assert_result(op: Op, case: Case, dst: Tensor, src: tuple[Tensor | None, ...], expected: dict[str, bytes]) -> None:
    """Run the oracle; fail unless it leaves in every memory what is expected, and all else as it was."""
    tensors = {f"src{slot}": tensor for slot, tensor in enumerate(src) if tensor is not None} | {"dst": dst}
    before = {name: memory(tensor).copy() for name, tensor in tensors.items()}
    run(op, dst, src, op.pack(case.params))
    owner = case.dst.alias or "dst"
    for name, tensor in tensors.items():
        if name == "dst" and owner != "dst":
            continue
        if name not in expected:
            assert np.array_equal(memory(tensor), before[name]), f"{name} is a source and was changed"
            continue
        result = dst if name == owner else tensor
        outside = ~element_bytes(result)
        assert np.array_equal(memory(tensor)[outside], before[name][outside]), f"{name}: guard or gap bytes were changed"
        want = replace(result, storage=with_bytes(tensor, expected[name]).storage)
        mismatch = compare_tensors(want, result, case.tolerance or op.tolerance)
        assert mismatch is None, f"{name}: {mismatch}"


def run(op: Op, dst: Tensor, src: tuple[Tensor | None, ...], op_params: bytes) -> None:
    """Check and compute a node as the executor does: an empty result is not computed."""
    node = op.check(dst, src, op_params)
    if dst.nelements:
        op.oracle(node)


def memory(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    assert isinstance(tensor.storage, PlainStorage)
    return tensor.storage.data


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_the_recorded_file_has_exactly_the_cases(op: Op) -> None:
    ids = [case.id for case in cases_of(op.name)]
    assert len(set(ids)) == len(ids), "two cases of one id"
    if not ids:
        assert not (WITNESS / f"{op.name.lower()}.json").exists()
        return
    document = recorded(op.name)
    assert document["op"] == op.name
    assert [entry["id"] for entry in document["cases"]] == ids


@pytest.mark.parametrize("name", ["SET_ROWS", "ROPE", "IM2COL"])
def test_the_recorder_writes_the_inputs_that_are_there(name: str) -> None:
    """Compressed perhaps by another zlib, but of the same operands, and all of their bytes."""
    document, beside = record_ops.with_inputs(OPS[name], without_payloads(recorded(name)))
    assert without_payloads(document) == without_payloads(recorded(name))
    there = operands.payloads(WITNESS / f"{name.lower()}.json")
    for ours, theirs in zip(document["cases"], recorded(name)["cases"], strict=True):
        for (_, a), (_, b) in zip(operands.owners(ours), operands.owners(theirs), strict=True):
            assert operands.before(a, beside) == operands.before(b, there)


def without_payloads(document: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = copy.deepcopy(document)
    for case in copied["cases"]:
        for operand in (case["dst"], *case["src"]):
            (operand or {}).pop("payload", None)
    return copied


def test_sum_adds_all_elements_of_a_transposed_tensor() -> None:
    """ggml_sum takes one (test-backend-ops.cpp permutes by 1, 0, 2, 3); upstream's CPU reads the wrong floats, so no witness."""
    whole = (np.arange(33 * 256 * 2, dtype=np.float32) % 7).reshape(1, 2, 256, 33)
    storage, dst = PlainStorage(whole.reshape(-1).view(np.uint8)), Tensor(BY_NAME["F32"], (1, 1, 1, 1), (4, 4, 4, 4))
    transposed = Tensor(BY_NAME["F32"], (256, 33, 2, 1), (132, 4, 33 * 1024, 66 * 1024), storage)
    dst = replace(dst, storage=PlainStorage(np.zeros(4, np.uint8)))
    run(OPS["SUM"], dst, (transposed,), bytes(64))
    assert dst.array.item() == sum(k % 7 for k in range(33 * 256 * 2))


# --- nodes that no op can mean ------------------------------------------------------------------------------------------

EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 64, 128, 255, 256, 1024, 2**31 - 1, 2**31, 2**32 - 1)
"""Values worth putting into ne, nb and op_params: small ones that still fit in memory, and the ends of 32 bits."""
FLOAT_BITS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0xBF800000, 0x3F800000, 0x7F7FFFFF, 0x00000001)
OF_ONE = ("ne", "ne, nb", "nb", "nb doubled", "swap", "type", "fill", "drop", "add", "unalias")
OF_ALL = ("ne", "swap", "swap, nb", "type")
FILLS = ("bits", "special", "zeros", "index:300", "values:-1,0,1", "normal:1e30")
TYPES = sorted(dtype.name for dtype in CAN_DEQUANTISE if dtype in types().values())
"""The types of 3.6.1; later ones are refused before an op sees them."""
MOST_ELEMENTS, MOST_BYTES = 2**16, 2**18
"""A mutated node is computed up to this size; beyond it only `check` runs, which must not look at memory."""


@dataclass(frozen=True)
class Mutant:
    """A case that has been meddled with, and its op_params as they come from the wire."""

    case: Case
    op_params: bytes
    refilled: bool = False

    @property
    def operands(self) -> list[Operand]:
        return [operand for operand in (self.case.dst, *self.case.src) if operand is not None]

    def geometry(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the node's tensors without memory."""
        return geometry(self.case.dst), tuple(None if operand is None else geometry(operand) for operand in self.case.src)

    def could_come(self) -> bool:
        """Whether memory checks before an op's own rules, for whole blocks in their place, let this pass, and it can be made."""
        tensors = [geometry(operand) for operand in self.operands]
        # numbers can be made only in the types that can be written
        made = all(o.fill in ("bits", "blocks") or o.dtype not in BLOCKS or o.dtype in WRITABLE_BLOCKS for o in self.operands)
        whole = all(t.ne[0] % t.dtype.block == 0 and (t.dtype.block == 1 or t.nb[0] >= t.dtype.size) for t in tensors)
        small = all(max(*t.ne, t.nelements) <= MOST_ELEMENTS and t.nbytes <= MOST_BYTES for t in tensors)
        return made and whole and small and self._dst_fits()

    def is_tame(self, *, elementwise: bool) -> bool:
        """Whether its numbers are the case's: others may overflow or tie, and then the order of work decides what comes out.

        Args:
            elementwise: the op's elements don't depend on each other, so any number will do.
        """
        tensors = [geometry(operand) for operand in self.operands]
        torn = any(stride % tensor.dtype.size for tensor in tensors for stride in tensor.nb)
        special = self.refilled or any(operand.fill == "special" for operand in self.operands)
        return not torn and (elementwise or not special)

    def _dst_fits(self) -> bool:
        dst = self.case.dst
        owner = self.case.src[int(dst.alias.removeprefix("src"))] if dst.alias else None
        return owner is None or dst.offset + geometry(dst).nbytes <= geometry(owner).nbytes


def geometry(operand: Operand) -> Tensor:
    dtype = BY_NAME[operand.dtype]
    return Tensor(dtype, operand.quad, operand.nb or contiguous_nb(dtype, operand.quad), offset=operand.offset)


@st.composite
def mutants(draw: st.DrawFn, op: Op) -> Mutant:
    """A good node of the op with one to three things changed, each of one operand, of all alike, or of a parameter."""
    case = draw(st.sampled_from(cases_of(op.name)))
    op_params = bytearray(op.pack(case.params))
    operands: dict[int, Operand] = {slot: operand for slot, operand in enumerate(case.src) if operand is not None} | {-1: case.dst}
    refilled = False
    for _ in range(draw(st.integers(1, 3))):
        what = draw(st.sampled_from((*["one"] * 3, *["all"] * 2, "parameter")))
        if what == "parameter":
            at = 4 * draw(st.integers(0, 15))
            op_params[at : at + 4] = draw(st.sampled_from(EDGES + FLOAT_BITS)).to_bytes(4, "little")
            continue
        kind, dims = draw(st.sampled_from(OF_ONE if what == "one" else OF_ALL)), draw(st.permutations(range(4)))
        value, dtype, fill = draw(st.sampled_from(EDGES)), draw(st.sampled_from(TYPES)), draw(st.sampled_from(FILLS))
        for slot in [draw(st.sampled_from(sorted(operands)))] if what == "one" else list(operands):
            operands[slot] = changed(operands[slot], kind, dims, value, dtype, fill)
            refilled |= kind == "fill"
            if kind == "drop" and slot >= 0:
                del operands[slot]
            elif kind == "add":
                operands.setdefault(value % MAX_SRC, replace(operands[slot], alias=""))
    dst = operands.pop(-1)
    if dst.alias and int(dst.alias.removeprefix("src")) not in operands:
        dst = replace(dst, alias="", offset=0)
    src = tuple(operands.get(slot) for slot in range(MAX_SRC))
    return Mutant(replace(case, dst=dst, src=src), bytes(op_params), refilled)


def changed(operand: Operand, kind: str, dims: list[int], value: int, dtype: str, fill: str) -> Operand:
    """Return an operand with one thing changed; strides that are not named become contiguous."""
    ne, nb, (dim, other, *_) = list(operand.quad), list(geometry(operand).nb), dims
    match kind:
        case "ne" | "ne, nb":
            ne[dim] = value
            return with_geometry(operand, ne, nb if kind == "ne, nb" else None)
        case "nb" | "nb doubled":
            nb[dim] = value if kind == "nb" else min(2 * nb[dim], 2**32 - 1)
            return with_geometry(operand, ne, nb)
        case "swap" | "swap, nb":
            ne[dim], ne[other] = ne[other], ne[dim]
            nb[dim], nb[other] = nb[other], nb[dim]
            return with_geometry(operand, ne, nb if kind == "swap, nb" else None)
        case "type":
            return with_fill(replace(operand, dtype=dtype, nb=None), "normal")
        case "fill":
            return with_fill(operand, fill)
        case "unalias":
            return replace(operand, alias="", offset=0)
        case _:
            return operand


def with_geometry(operand: Operand, ne: list[int], nb: list[int] | None) -> Operand:
    strides = None if nb is None else (nb[0], nb[1], nb[2], nb[3])
    return replace(operand, ne=tuple(ne), nb=strides)


def with_fill(operand: Operand, fill: str) -> Operand:
    """Return the operand with another recipe, one that its type can be made by."""
    needs_blocks = operand.dtype in BLOCKS and operand.dtype not in WRITABLE_BLOCKS
    return replace(operand, fill="blocks" if needs_blocks and fill != "bits" else fill)


COMPUTED: dict[int, str] = {
    10: "CONV_TRANSPOSE_1D CROSS_ENTROPY_LOSS_BACK PERMUTE RWKV_WKV7 TRANSPOSE WIN_PART",
    15: "ADD_ID CONV_2D_DW CONV_3D GATED_LINEAR_ATTN IM2COL IM2COL_3D PAD ROPE_BACK SSM_CONV",
    20: "ADD_REL_POS CONV_2D CONV_TRANSPOSE_2D IM2COL_BACK MUL_MAT_ID ROPE RWKV_WKV6 SSM_SCAN",
    25: "ACC ARGMAX DIAG FLASH_ATTN_EXT GATED_DELTA_NET GET_ROWS GLU OPT_STEP_ADAMW OPT_STEP_SGD POOL_1D RESHAPE SET "
    "SET_ROWS SILU_BACK WIN_UNPART",
    30: "ADD ARANGE ARGSORT CONCAT DIV FLASH_ATTN_BACK GET_REL_POS GET_ROWS_BACK GROUP_NORM L2_NORM LEAKY_RELU MEAN MUL "
    "MUL_MAT NORM OUT_PROD PAD_REFLECT_1D POOL_2D POOL_2D_BACK SOLVE_TRI SUB SUM_ROWS TIMESTEP_EMBEDDING TOP_K TRI",
    35: "ADD1 CUMSUM DIAG_MASK_INF DIAG_MASK_ZERO ROLL SCALE SOFT_MAX SOFT_MAX_BACK VIEW",
    40: "CLAMP COS FILL LOG RMS_NORM_BACK SIN SQR SQRT",
    45: "COUNT_EQUAL CROSS_ENTROPY_LOSS REPEAT REPEAT_BACK RMS_NORM SUM",
    50: "CPY UNARY UPSCALE",
    55: "CONT DUP",
    75: "NONE",
}
"""Of 200 mutants of each op so many are accepted and computed at the least: about half of those counted when this was written."""
MUTANTS = 80
"""How many are tried of each op; `fuzz` tries them by the million."""
FLOORS = {name: floor * MUTANTS // 300 for floor, names in COMPUTED.items() for name in names.split()}


def test_every_op_with_cases_has_a_floor() -> None:
    assert sorted(FLOORS) == sorted(name for name in OPS if cases_of(name))
    assert min(FLOORS.values()) > 0


def count_computed(op: Op) -> int:
    """Try mutants; fail where bytes beside a memory change. Return how many were computed to an end."""
    computed = 0

    @seed(SEED)
    @settings(max_examples=MUTANTS, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutant=mutants(op), salt=st.integers(0, 2**32 - 1))
    def check(mutant: Mutant, salt: int) -> None:
        nonlocal computed
        try:
            op.check(*mutant.geometry(), mutant.op_params)
        except Violation:
            return
        if not mutant.could_come():
            return
        dst, src = recipes.build(op.name, mutant.case, str(salt))
        with suppress(Violation):
            run(op, dst, src, mutant.op_params)
            computed += dst.nelements > 0
        for tensor in (dst, *src):
            if tensor is not None:
                assert (memory(tensor)[: recipes.GUARD] == recipes.GUARD_BYTE).all(), "bytes before the memory were changed"
                assert (memory(tensor)[-recipes.GUARD :] == recipes.GUARD_BYTE).all(), "bytes after the memory were changed"

    check()
    return computed


@pytest.mark.parametrize("name", FLOORS)
def test_mutated_nodes_are_refused_or_computed(name: str) -> None:
    computed = count_computed(OPS[name])
    assert computed >= FLOORS[name], f"{computed} mutants were computed with GGML_RPC_REF_SEED={SEED}"


def test_an_op_that_refuses_every_mutant_is_noticed() -> None:
    def refuse(*_: object) -> Any:
        raise Violation("graph.shape", "dst", "it refuses everything")

    assert count_computed(replace(OPS["RMS_NORM"], shape=refuse)) == 0


NEEDED = [
    (name, slot) for name, op in OPS.items() if cases_of(name) for slot, source in enumerate(op.sources) if not source.optional
]


@pytest.mark.parametrize(("name", "slot"), NEEDED)
def test_a_missing_source_is_an_arity_violation(name: str, slot: int) -> None:
    case = cases_of(name)[0]
    dst, src = Mutant(case, b"").geometry()
    with pytest.raises(Violation) as caught:
        OPS[name].check(dst, (*src[:slot], None, *src[slot + 1 :]), OPS[name].pack(case.params))
    assert caught.value.rule == "graph.arity"


# --- live ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genuine(upstream_build: upstream.Build) -> Iterator[record_ops.SpawnedServer]:
    """A genuine server, with the recorder's wire client, which is independent of ours."""
    server = record_ops.SpawnedServer()
    yield server
    server.close()


@pytest.mark.upstream
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_oracle_agrees_with_a_live_server(op: Op, genuine: record_ops.SpawnedServer) -> None:
    with closing(genuine.connect()) as wire:  # the server takes the next client only when this one has gone
        for case in cases_of(op.name):
            salt = f"/{SEED}"
            dst, src = recipes.build(op.name, case, salt)
            tensors = {f"src{slot}": tensor for slot, tensor in enumerate(src) if tensor is not None} | {"dst": dst}
            after = record_ops.run_node(wire, op.name, op.pack(case.params), dst, src, case.dst.alias)
            owner = case.dst.alias or "dst"
            changed = [name for name in after if name == owner or not np.array_equal(after[name], memory(tensors[name]))]
            expected = {name: after[name][recipes.GUARD : -recipes.GUARD].tobytes() for name in changed}
            try:
                assert_result(op, case, dst, src, expected)
            except AssertionError as error:
                raise AssertionError(f"{op.name}-{case.id} with salt {salt!r}: {error}") from error


LEAST_COMPARED = 3
"""Of 60 mutants of each op at least this many must be computed by both; the fewest were 7 when this was written (RWKV_WKV7)."""
ELEMENTWISE = {"CLAMP"}
"""Ops whose only cases hold special values; they may, since no element depends on another."""
NOT_COMPARABLE = {
    "COUNT_EQUAL": "upstream counts other rows, some of them outside, where ne[2] or ne[3] is above 1",
    **dict.fromkeys(("PERMUTE", "RESHAPE", "TRANSPOSE", "VIEW"), "they compute nothing: dst is the memory of its source"),
    "ARGSORT": "the order of equal elements is whatever upstream's std::sort makes of that row length",
}
"""Ops that are not compared: where the genuine server's answer is a defect or an accident, their docstrings say more."""


@pytest.mark.upstream
@pytest.mark.parametrize("name", [name for name in OPS if cases_of(name) and name not in NOT_COMPARABLE])
def test_mutated_nodes_that_are_accepted_agree_with_a_live_server(name: str, genuine: record_ops.SpawnedServer) -> None:
    """The rest of the refusal property: what an op does not refuse, it computes as the genuine server does, which survives it."""
    op = OPS[name]
    tolerances = [case.tolerance or op.tolerance for case in cases_of(name)]
    loosest = Tolerance(max(t.rtol for t in tolerances), max(t.atol for t in tolerances), max(t.nmse for t in tolerances))

    compared = 0

    @seed(SEED)
    @settings(max_examples=60, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutant=mutants(op), salt=st.integers(0, 2**32 - 1))
    def check(mutant: Mutant, salt: int) -> None:
        nonlocal compared
        if not mutant.could_come() or not mutant.is_tame(elementwise=name in ELEMENTWISE):
            return
        dst, src = recipes.build(name, mutant.case, str(salt))
        if is_misread(name, src) or dst.nelements == 0 or any(overlaps_askew(dst, tensor) for tensor in src if tensor is not None):
            return
        ours = recipes.build(name, mutant.case, str(salt))
        try:
            run(op, *ours, mutant.op_params)
        except Violation:
            return
        with closing(genuine.connect()) as wire:
            try:
                after = record_ops.run_node(wire, name, mutant.op_params, dst, src, mutant.case.dst.alias)
            except record_ops.ServerGone:
                raise AssertionError(f"accepted, but the genuine server dies of it: {genuine.last_words()}") from None
        theirs = replace(ours[0], storage=PlainStorage(after[mutant.case.dst.alias or "dst"].copy()))
        mismatch = compare_tensors(theirs, ours[0], loosest)
        assert mismatch is None, mismatch
        compared += 1

    check()
    assert compared >= LEAST_COMPARED, f"{compared} were compared with GGML_RPC_REF_SEED={SEED}"


def is_misread(name: str, src: tuple[Tensor | None, ...]) -> bool:
    """Whether upstream is known to read something else than the operands: SUM of rows with gaps."""
    return name == "SUM" and src[0] is not None and src[0].nb[0] != src[0].dtype.size


def overlaps_askew(dst: Tensor, source: Tensor) -> bool:
    """Whether dst shares a source's memory in another layout: what upstream computes then depends on its order of work."""
    alike = (dst.dtype, dst.ne, dst.nb, dst.offset) == (source.dtype, source.ne, source.nb, source.offset)
    return dst.storage is source.storage and not alike
