"""What ops mean in other versions: the oracle against what genuine servers computed, and each version against its marks.

The expected bytes are in vectors/upstream-8.0.0-…/ops/ and those of 6.0.0, 4.0.0 and 2.0.0, written by vectors/tools/record_ops.py
--build VERSION. What 3.6.1 computes is in test_ops.py; `cases_of` says which of its cases mean the same in another version, and
`record_ops --build VERSION --dry-run --every` compares those as well.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref.backends import Step, in_turn, never
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.upstream_cpu import UpstreamCpu
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS, canonical_ops, ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.ops.shared import slabs
from ggml_rpc_ref.ops.shared.sorting import exchanged
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.op_changes import OP_CHANGES, WITNESSES
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, PROFILES, Version
from tests.support.each import each
from tests.test_ops import VECTORS, assert_result, assert_same_inputs, with_bytes
from vectors.tools import op_wire, record_ops

BUILD = op_wire.BUILDS[str(NEWEST)]
EARLIER = op_wire.BUILDS["6.0.0"]
"""A build that has a meaning which 3.6.1 and 8.0.0 have not: DSV4_HC_PRE without a factor."""
MIDDLE = op_wire.BUILDS["4.0.0"]
"""A build whose GATED_DELTA_NET has slots of states, as no other version's has."""
OLDEST = op_wire.BUILDS["2.0.0"]
"""A build of old meanings: PAD without parameters, heads that go to SSM_SCAN's groups in turn."""
RECORDED = {BUILD.protocol: 289, EARLIER.protocol: 6, MIDDLE.protocol: 12, OLDEST.protocol: 16}
"""Protocol version to the cases recorded from it."""


@cache
def recorded(name: str, build: op_wire.Build = BUILD) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((build.out / f"{name.lower()}.json").read_text())
    return document


def rows() -> Iterator[Any]:
    for build in (BUILD, EARLIER, MIDDLE, OLDEST):
        for name, op in ops_of(Version(*build.protocol)).items():
            if cases := record_ops.cases_to_record(name, build):
                yield pytest.param(op, build, cases, id=f"{build.directory}-{name}")


@pytest.mark.parametrize(("op", "build", "cases"), list(rows()))
def test_oracle_gives_the_recorded_results(op: Op, build: op_wire.Build, cases: list[Case]) -> None:
    pairs = zip(cases, recorded(op.name, build)["cases"], strict=True)
    each(oracle_gives_what_is_recorded, ((case.id, (op, case, entry)) for case, entry in pairs))


def oracle_gives_what_is_recorded(op: Op, case: Case, entry: dict[str, Any]) -> None:
    dst, src = recipes.build(op.name, case)
    assert_same_inputs(entry, case, dst, src)
    assert entry["op_params"] == op.pack(case.params).hex()
    expected = {name: zlib.decompress(base64.b64decode(text)) for name, text in entry["expected"].items()}
    assert_result(op, case, dst, src, expected)


@pytest.mark.parametrize("name", sorted({row.values[0].name for row in rows() if row.values[1] is BUILD}))
def test_oracle_gives_the_same_part_by_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", 64)
    op = ops_of(NEWEST)[name]
    for case, entry in zip(record_ops.cases_to_record(name, BUILD), recorded(name)["cases"], strict=True):
        expected = {memory: zlib.decompress(base64.b64decode(text)) for memory, text in entry["expected"].items()}
        assert_result(op, case, *recipes.build(name, case), expected)


@pytest.mark.parametrize("build", [BUILD, EARLIER, MIDDLE, OLDEST], ids=lambda build: build.directory)
def test_the_recorded_files_have_exactly_the_cases(build: op_wire.Build) -> None:
    wanted = {name: [case.id for case in record_ops.cases_to_record(name, build)] for name in ops_of(NEWEST)}
    found = {json.loads(path.read_text())["op"]: path for path in build.out.glob("*.json")}
    assert {name for name, ids in wanted.items() if ids} == set(found)
    assert {name: [entry["id"] for entry in recorded(name, build)["cases"]] for name in found} == {n: wanted[n] for n in found}
    assert sum(map(len, wanted.values())) == RECORDED[build.protocol]


def test_the_spec_names_the_directories_that_there_are() -> None:
    assert {VECTORS.parent / directory for directory in WITNESSES.values()} <= {path.parent for path in VECTORS.glob("*/ops")}


# --- marks --------------------------------------------------------------------------------------------------------------


def test_every_change_is_on_a_page_and_the_pages_name_no_others() -> None:
    ops = {**ops_of(NEWEST), **OPS}.values()
    named = [change.change for op in ops for change in (*op.later, *op.earlier)]
    assert sorted(named) == sorted(OP_CHANGES)
    assert all(OP_CHANGES[change.change].op == op.name for op in ops for change in (*op.later, *op.earlier))
    assert all(OP_CHANGES[change.change].since > DEFAULT for op in ops for change in op.later)
    assert all(OP_CHANGES[change.change].since <= DEFAULT for op in ops for change in op.earlier)


@pytest.mark.parametrize("change", OP_CHANGES.values(), ids=OP_CHANGES)
def test_every_meaning_has_a_case_that_the_version_before_refuses_or_computes_otherwise(change: Any) -> None:
    """A mark that changes nothing would be seen here: the same node is another one, or none, in the version before."""
    ends = [case for case in cases_of(change.op, _before(change.since)) if case.until == change.id]
    begins = [case for case in cases_of(change.op, change.since) if case.since == change.id]
    assert begins or ends
    old, new = ops_of(_before(change.since))[change.op], ops_of(change.since)[change.op]
    assert any(_outcome(old, case) != _outcome(new, case) for case in (*begins, *ends)) or change.id == "MUL_MAT.hint"


def _before(version: Version) -> Version:
    """The version before another, in which the op exists at least."""
    return max(other for other in PROFILES if other < version)


def _outcome(op: Op, case: Case) -> bytes | str:
    known = {name: value for name, value in case.params.items() if op.reads(name)}
    dst, src = recipes.build(op.name, case)
    try:
        node = op.check(dst, src, op.pack(known))
        if dst.nelements:
            op.oracle(node)
    except Violation as violation:
        return violation.rule
    return dst.array.tobytes()


def newer(version: Version) -> Version:
    """Return the next version."""
    return min((other for other in PROFILES if other > version), default=version)


@pytest.mark.parametrize("version", PROFILES, ids=str)
def test_every_case_of_a_version_is_accepted_there(version: Version) -> None:
    """An op that is in the next version as it is in this one is asked there."""
    refused, later = [], ops_of(newer(version)) if version < NEWEST else {}
    for name, op in ops_of(version).items():
        same = cases_of(name, newer(version)) if later.get(name) == op else []
        for case in cases_of(name, version):
            if case not in same:
                dst, src = recipes.build(name, case)
                try:
                    op.check(dst, src, op.pack(case.params))
                except Violation as violation:
                    refused.append(f"{name}-{case.id}: {violation}")
    assert refused == []


def test_the_running_text_has_no_change() -> None:
    assert [op.name for op in OPS.values() if op.changes] == []
    assert "COL2IM_1D" not in OPS


NAN = np.nan
SORTED_BY_2_0_0 = [
    ((NAN, 3, 1, 2), (0, 2, 3, 1), (0, 1, 3, 2)),
    ((3, NAN, 1, 2), (2, 1, 3, 0), (0, 1, 3, 2)),
    ((3, 1, NAN, 2), (1, 3, 2, 0), (0, 3, 2, 1)),
    ((3, 1, 2, NAN), (1, 2, 0, 3), (0, 2, 1, 3)),
    ((NAN, NAN, 2, 1), (0, 1, 3, 2), (0, 1, 2, 3)),
    ((NAN, 1, NAN, 0), (0, 3, 2, 1), (0, 1, 2, 3)),
    ((2, NAN, 1, NAN), (2, 1, 0, 3), (0, 1, 2, 3)),
    ((NAN, NAN, NAN, NAN), (0, 1, 2, 3), (0, 1, 2, 3)),
    ((5, 4, NAN, 3), (3, 1, 2, 0), (0, 1, 2, 3)),
    ((1, 2, NAN, 3), (0, 1, 2, 3), (3, 1, 2, 0)),
]
"""Rows with NaN, and what the genuine server of 2.0.0 (llama-cpp-python 0.3.16) made of them: rising, falling."""


@pytest.mark.parametrize(("row", "rising", "falling"), SORTED_BY_2_0_0)
def test_an_exchange_sort_leaves_nan_where_the_genuine_one_does(
    row: tuple[float, ...], rising: tuple[int, ...], falling: tuple[int, ...]
) -> None:
    values = np.array(row, np.float32)
    assert tuple(exchanged(values, falling=False)) == rising
    assert tuple(exchanged(values, falling=True)) == falling


def test_kinds_are_numbered_as_the_version_does() -> None:
    old = Version.parse("3.0.0")
    assert ops_of(old)["UNARY"].kinds[14] == "GELU_ERF"
    assert canonical_ops(old)["UNARY"].kinds[14] == "EXPM1"
    assert (len(OPS["GLU"].kinds), len(ops_of(NEWEST)["GLU"].kinds)) == (6, 7)


def test_a_wrong_mark_is_seen() -> None:
    """An op whose change is dated too late refuses what its version means."""
    fill, case = ops_of(NEWEST)["FILL"], next(case for case in cases_of("FILL", NEWEST) if case.since)
    assert _outcome(replace(fill, later=()).at(NEWEST), case) != "graph.type"  # the row itself has the change
    assert _outcome(OPS["FILL"], case) == "graph.type"


# --- upstream-cpu -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MUL_MAT", "MUL_MAT_ID", "GLU", "UNARY", "FLASH_ATTN_EXT"])
def test_upstream_cpu_is_as_near_as_to_what_3_6_1_computes(name: str) -> None:
    """The new types, kinds and the promise of a Hadamard matrix, rounded as upstream's CPU does: near beyond the op's tolerance."""
    op, near = canonical_ops(NEWEST)[name], Tolerance(rtol=2e-5, atol=1e-5, nmse=1e-9)
    for case, entry in zip(record_ops.cases_to_record(name, BUILD), recorded(name)["cases"], strict=True):
        dst, src = recipes.build(name, case)
        node, backend = op.check(dst, src, op.pack(case.params)), UpstreamCpu(HostMemory(0))
        want = replace(dst, storage=with_bytes(dst, zlib.decompress(base64.b64decode(entry["expected"]["dst"]))).storage)
        compute = backend.compile([Step(node, "", None)]) if backend.supports(node) else in_turn([(node, partial(op.oracle, node))])
        compute(never)
        assert compare_tensors(want, dst, near) is None, case.id


def test_a_broken_promise_gives_what_upstream_gives_and_not_the_product() -> None:
    op = canonical_ops(NEWEST)["MUL_MAT"]
    weights, row = Operand("F32", (8, 8)), Operand("F32", (8, 1), fill="values:1,0,0,0,0,0,0,0")
    dst, src = recipes.build("MUL_MAT", Case("broken", Operand("F32", (8, 1)), (weights, row)))
    UpstreamCpu(HostMemory(0)).compile([Step(op.check(dst, src, op.pack({"hint": 1})), "", None)])(never)
    assert np.allclose(dst.array, 1 / np.sqrt(8))


@pytest.mark.parametrize(("ne", "rows", "dtype"), [((6, 6), (6, 2), "F32"), ((8, 4), (8, 2), "F32"), ((8, 8), (8, 2), "BF16")])
def test_a_promise_that_can_not_hold_is_refused(ne: tuple[int, ...], rows: tuple[int, ...], dtype: str) -> None:
    """Upstream's kernel asserts the power of 2 and the type, and writes beyond a result with fewer rows than columns."""
    op, case = ops_of(NEWEST)["MUL_MAT"], Case("x", Operand("F32", (ne[1], rows[1])), (Operand("F32", ne), Operand(dtype, rows)))
    dst, src = recipes.build("MUL_MAT", case)
    op.check(dst, src, op.pack({}))
    with pytest.raises(Violation, match="by the hint"):
        op.check(dst, src, op.pack({"hint": 1}))
