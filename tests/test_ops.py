"""Every op's oracle against what the genuine 3.6.1 server computed, and against nodes that no op can mean.

The expected bytes are in vectors/upstream-3.6.1-…/ops/, written by vectors/tools/record_ops.py. `pytest -k RMS_NORM` runs one op.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS, recipes
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import MAX_SRC, Case, Op
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import PlainStorage, Quad, Tensor, contiguous_nb, extent

VECTORS = Path(__file__).parents[1] / "vectors"
WITNESS = VECTORS / "upstream-3.6.1-llama-cpp-python-0.3.20" / "ops"

# --- the witness --------------------------------------------------------------------------------------------------------


@cache
def recorded(name: str) -> dict[str, Any]:
    """Return an op's file."""
    document: dict[str, Any] = json.loads((WITNESS / f"{name.lower()}.json").read_text())
    return document


@cache
def cases_of(name: str) -> tuple[Case, ...]:
    return tuple(OPS[name].cases())


def rows() -> Iterator[Any]:
    for name in OPS:
        for number, case in enumerate(cases_of(name)):
            yield pytest.param(OPS[name], number, id=f"{name}-{case.id}")


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


@pytest.mark.parametrize(("op", "number"), list(rows()))
def test_oracle_gives_the_recorded_result(op: Op, number: int) -> None:
    case, entry = cases_of(op.name)[number], recorded(op.name)["cases"][number]
    dst, src = recipes.build(op.name, case)
    assert_same_inputs(entry, case, dst, src)
    op_params = op.pack(case.params)
    assert entry["op_params"] == op_params.hex()
    expected = {name: zlib.decompress(base64.b64decode(text)) for name, text in entry["expected"].items()}
    assert_result(op, case, dst, src, expected)


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


# --- nodes that no op can mean ------------------------------------------------------------------------------------------

EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 64, 128, 255, 256, 1024, 2**31 - 1, 2**31, 2**32 - 1)
"""Values worth putting into ne, nb and op_params: small ones that still fit in memory, and the ends of 32 bits."""
FLOAT_BITS = (0x7FC00000, 0x7F800000, 0xFF800000, 0x80000000, 0xBF800000, 0x3F800000, 0x7F7FFFFF, 0x00000001)
KINDS = ("ne", "ne and nb", "nb", "swap", "type", "type and nb", "param", "param", "drop", "add", "unalias")
MOST_ELEMENTS, MOST_BYTES = 2**16, 2**18
"""A mutated node is computed up to this size; beyond it only `check` runs, which must not look at memory."""


@dataclass
class Draft:
    """A node being mutated: geometry per operand ("dst", 0 … 9), its parameters, and which source dst lies in."""

    operands: dict[str | int, tuple[str, Quad, Quad, int]]
    op_params: bytearray
    alias: int | None
    touched: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, op: Op, case: Case) -> Draft:
        operands = {}
        for slot, operand in (("dst", case.dst), *enumerate(case.src)):
            if operand is not None:
                nb = operand.nb or contiguous_nb(BY_NAME[operand.dtype], operand.quad)
                operands[slot] = (operand.dtype, operand.quad, nb, operand.offset)
        alias = int(case.dst.alias.removeprefix("src")) if case.dst.alias else None
        return cls(operands, bytearray(op.pack(case.params)), alias)

    def tensors(self, seed: int) -> tuple[Tensor, tuple[Tensor | None, ...], list[PlainStorage]] | None:
        """Return the node's tensors in guarded memory of random bytes, or None where that would be too big."""
        rng, storages = np.random.default_rng(seed), {}
        extents = {slot: extent(BY_NAME[name], ne, nb) + offset for slot, (name, ne, nb, offset) in self.operands.items()}
        elements = [int(np.prod([int(n) for n in ne], dtype=object)) for _, ne, _, _ in self.operands.values()]
        if max(extents.values()) > MOST_BYTES or max(elements) > MOST_ELEMENTS or not self.could_come():
            return None
        if self.alias in extents:
            extents[self.alias] = max(extents[self.alias], extents["dst"])
        for slot, size in extents.items():
            storages[slot] = PlainStorage(np.full(size + 2 * recipes.GUARD, recipes.GUARD_BYTE, np.uint8))
            storages[slot].data[recipes.GUARD : size + recipes.GUARD] = content(rng, size)
        if self.alias in extents:
            storages["dst"] = storages[self.alias]
        found = {
            slot: Tensor(BY_NAME[name], ne, nb, storages[slot], recipes.GUARD + offset, str(slot))
            for slot, (name, ne, nb, offset) in self.operands.items()
        }
        return found["dst"], tuple(found.get(slot) for slot in range(MAX_SRC)), list(storages.values())

    def could_come(self) -> bool:
        """Whether the checks before an op's own rules would let this pass: whole blocks, a dst whose elements share no bytes."""
        whole = all(ne[0] % BY_NAME[name].block == 0 for name, ne, _, _ in self.operands.values())
        name, ne, nb, _ = self.operands["dst"]
        dtype = BY_NAME[name]
        return whole and int(np.prod(ne, dtype=object)) // dtype.block * dtype.size <= extent(dtype, ne, nb)

    def geometry(self) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return the node's tensors without memory."""
        found = {slot: Tensor(BY_NAME[name], ne, nb) for slot, (name, ne, nb, _) in self.operands.items()}
        return found["dst"], tuple(found.get(slot) for slot in range(MAX_SRC))


def content(rng: np.random.Generator, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return random bytes, or small integers, or floats near 1: whichever the generator picks."""
    words = -(-size // 4)
    match rng.integers(3):
        case 0:
            chosen = rng.integers(0, 2**32, words, np.uint32)
        case 1:
            chosen = rng.integers(0, 4, words, np.uint32)
        case _:
            chosen = rng.standard_normal(words, np.float32)
    return chosen.view(np.uint8)[:size]


@st.composite
def mutated(draw: st.DrawFn, op: Op) -> Draft:
    """A good node of the op with one to three things wrong."""
    draft = Draft.of(op, draw(st.sampled_from(cases_of(op.name))))
    for _ in range(draw(st.integers(1, 3))):
        slot = draw(st.sampled_from(list(draft.operands)))
        dtype, ne, nb, offset = draft.operands[slot]
        dim, value = draw(st.integers(0, 3)), draw(st.sampled_from(EDGES))
        kind = draw(st.sampled_from(KINDS))
        draft.touched.append(f"{kind} {slot} {dim} {value}")
        match kind:
            case "ne" | "ne and nb":
                ne = (*ne[:dim], value, *ne[dim + 1 :])
                nb = contiguous_nb(BY_NAME[dtype], ne) if kind == "ne and nb" else nb
            case "nb":
                nb = (*nb[:dim], value, *nb[dim + 1 :])
            case "swap":
                other = draw(st.integers(0, 3))
                order = list(range(4))
                order[dim], order[other] = order[other], order[dim]
                ne, nb = tuple(ne[i] for i in order), tuple(nb[i] for i in order)  # type: ignore[assignment]
            case "type" | "type and nb":
                dtype = draw(st.sampled_from(list(BY_NAME)))
                nb = contiguous_nb(BY_NAME[dtype], ne) if kind == "type and nb" else nb
            case "param":
                at = 4 * draw(st.integers(0, 15))
                draft.op_params[at : at + 4] = draw(st.sampled_from(EDGES + FLOAT_BITS)).to_bytes(4, "little")
            case "add":
                draft.operands.setdefault(draw(st.integers(0, MAX_SRC - 1)), (dtype, ne, nb, offset))
            case "unalias":
                draft.alias = None
        draft.operands[slot] = (dtype, ne, nb, offset)
        if kind == "drop" and slot != "dst":
            del draft.operands[slot]
    return draft


@pytest.mark.parametrize("name", [name for name in OPS if cases_of(name)])
def test_mutated_nodes_are_refused_or_computed(name: str) -> None:
    op = OPS[name]

    @seed(0)
    @settings(max_examples=150, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(draft=mutated(op), content_seed=st.integers(0, 2**32 - 1))
    def check(draft: Draft, content_seed: int) -> None:
        try:
            op.check(*draft.geometry(), bytes(draft.op_params))
        except Violation:
            return
        built = draft.tensors(content_seed)
        if built is None:
            return
        dst, src, storages = built
        with suppress(Violation):
            run(op, dst, src, bytes(draft.op_params))
        for storage in storages:
            assert (storage.data[: recipes.GUARD] == recipes.GUARD_BYTE).all(), "bytes before the memory were changed"
            assert (storage.data[-recipes.GUARD :] == recipes.GUARD_BYTE).all(), "bytes after the memory were changed"

    check()


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_missing_source_is_an_arity_violation(op: Op) -> None:
    for case in cases_of(op.name)[:1]:
        dst, src = Draft.of(op, case).geometry()
        for slot, source in enumerate(op.sources):
            if source.optional:
                continue
            without = (*src[:slot], None, *src[slot + 1 :])
            with pytest.raises(Violation) as caught:
                op.check(dst, without, op.pack(case.params))
            assert caught.value.rule == "graph.arity"


# --- live ---------------------------------------------------------------------------------------------------------------


def recorder() -> Any:
    """Return vectors/tools/record_ops.py as a module: its wire client is independent of ours."""
    spec = importlib.util.spec_from_file_location("record_ops", VECTORS / "tools" / "record_ops.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["record_ops"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def genuine() -> Iterator[Any]:
    """The recorder and a connection to a genuine server of its own."""
    tool = recorder()
    if not (tool.ENVIRONMENT / "bin" / "python").exists():
        pytest.skip("no genuine 3.6.1 build here: ggml-rpc-ref upstream install 3.6.1")
    server = tool.SpawnedServer()
    yield tool, server
    server.close()


@pytest.mark.upstream
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_oracle_agrees_with_a_live_server(op: Op, genuine: Any) -> None:
    tool, server = genuine
    with closing(server.connect()) as wire:  # the server takes the next client only when this one has gone
        for case in cases_of(op.name):
            salt = f"/{np.random.SeedSequence().entropy}"
            dst, src = recipes.build(op.name, case, salt)
            tensors = {f"src{slot}": tensor for slot, tensor in enumerate(src) if tensor is not None} | {"dst": dst}
            after = tool.run_node(wire, op.name, op.pack(case.params), dst, src, case.dst.alias)
            owner = case.dst.alias or "dst"
            changed = [name for name in after if name == owner or not np.array_equal(after[name], memory(tensors[name]))]
            expected = {name: after[name][recipes.GUARD : -recipes.GUARD].tobytes() for name in changed}
            try:
                assert_result(op, case, dst, src, expected)
            except AssertionError as error:
                raise AssertionError(f"{op.name}-{case.id} with salt {salt!r}: {error}") from error
