"""Playing op vectors: on our server and the genuine one they pass, and a server that errs is told which op and case, and how."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref import upstream
from ggml_rpc_ref.commands import conform as command
from ggml_rpc_ref.conformance import Case, Given, Verdict, from_command, run
from ggml_rpc_ref.conformance.events import Report, Result
from ggml_rpc_ref.conformance.verdict import Broken
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.golden import play, play_ops
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.ops.compare import compare
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import BY_NAME, BY_NUMBER
from ggml_rpc_ref.spec.messages import RpcTensor
from ggml_rpc_ref.spec.opcodes import VIEW_OPS
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor, extent
from tests.support.sabotage import SABOTAGES, InProcess, Sabotage
from tests.support.sabotage.graph import MultipliesBadly
from tests.support.sabotage.sessions import ChangesGraphs, flip, nodes_of

HERE = Path(__file__).parent.parent / "vectors"
UPSTREAM = HERE / "upstream-3.6.1-llama-cpp-python-0.3.20"
OP_NUMBERS = {name: number for number, name in enumerate(json.loads((UPSTREAM / "enums.json").read_text())["ops"])}


@cache
def every_case() -> tuple[Case, ...]:
    return tuple(case for case in play.cases(HERE, {}) if case.id.startswith("ops/"))


@cache
def all_cases(version: Version = DEFAULT) -> tuple[Case, ...]:
    """Those that hold in a version."""
    return tuple(case for case in every_case() if case.present(version))


def some_cases(version: Version = DEFAULT) -> list[Case]:
    """The first and the last case of each op."""
    by_op: dict[str, list[Case]] = {}
    for case in all_cases(version):
        by_op.setdefault(case.id.split("/")[1], []).append(case)
    return [case for found in by_op.values() for case in dict.fromkeys((found[0], found[-1]))]


def of(*ops: str) -> list[Case]:
    return [case for case in all_cases() if case.id.split("/")[1] in ops]


def wrong(report: Report) -> dict[str, Result]:
    return {result.case.id: result for result in report.results if result.verdict is not Verdict.PASS}


# ------------------------------------------------------------------------------------------------------- servers that pass


def test_every_vector_of_an_op_is_a_case() -> None:
    ids = (HERE / "ids.txt").read_text().splitlines()
    listed = [line.split("/ops/", 1)[1].split(".json ") for line in ids if "/ops/" in line]
    assert [case.id for case in every_case()] == [f"ops/{name.upper()}/{id}" for name, id in listed]
    assert (len(every_case()), len(all_cases()), len(all_cases(NEWEST))) == (2698, 2375, 2619)
    assert (len(some_cases()), len(some_cases(NEWEST))) == (184, 194)


@pytest.mark.parametrize("device", ["oracle", "upstream-cpu", "auto"])
def test_our_server_passes(device: str) -> None:
    server = from_command(f"{sys.executable} -m ggml_rpc_ref serve -p {{port}} -d {device} --proto {DEFAULT}")
    report = run(server, some_cases())
    assert not wrong(report)
    assert len(report.results) == len(some_cases())


def test_our_server_of_the_newest_version_passes() -> None:
    server = from_command(f"{sys.executable} -m ggml_rpc_ref serve -p {{port}} -d oracle --proto {NEWEST}")
    report = run(server, some_cases(NEWEST))
    assert not wrong(report)
    assert len(report.results) == len(some_cases(NEWEST))


def test_the_genuine_server_passes_all_of_them(upstream_server: upstream.Server) -> None:
    report = run(Given(parse_endpoint(upstream_server.endpoint)), all_cases())
    assert not {id: result.detail for id, result in wrong(report).items()}
    assert len(report.results) == 2375


# ------------------------------------------------------------------------------------------------------- servers that err


def test_an_op_that_is_computed_wrongly_is_named_with_its_cases(tmp_path: Path) -> None:
    report = run(InProcess(tmp_path, SABOTAGES["graph.computes"]), of("MUL", "MUL_MAT", "NONE"))
    found = wrong(report)
    # one off in the first of many numbers is within the error that rounding to Q8_1 and similar types may cause over all
    assert len(found) > 50
    for id, result in found.items():
        assert (result.verdict, result.rule, id.split("/")[1]) == (Verdict.FAIL, "graph.computes", "MUL_MAT")
    detail = found["ops/MUL_MAT/f32-k3-m5-n2"].detail
    assert (
        "dst of MUL_MAT of F32, F32 to F32 to be as recorded within rtol 1e-05, atol 1e-06 or nmse 1e-10; value at [0,0,0,0]: "
        in detail
    )
    assert "1 of 10 wrong" in detail


def test_an_op_that_is_passed_over_is_wrong(tmp_path: Path) -> None:
    found = wrong(run(InProcess(tmp_path, SABOTAGES["graph.op-supported"]), of("SQR", "SQRT")))
    assert {id.split("/")[1] for id in found} == {"SQR"}
    assert len(found) == len([case for case in of("SQR") if "empty" not in case.id])
    assert all(result.rule == "graph.computes" for result in found.values())


class RefusesGelus(ChangesGraphs):
    """It lacks GLU, and says so."""

    def changed(self, graph: Graph) -> Graph:
        if any(0 not in node.ne for node in nodes_of(graph, OP_NUMBERS["GLU"])):
            raise Violation("graph.op-supported", "op", "GLU")
        return graph


def test_an_op_that_is_lacking_is_no_fault(tmp_path: Path) -> None:
    report = run(InProcess(tmp_path, Sabotage(session=RefusesGelus)), of("GLU", "GROUP_NORM"))
    found = wrong(report)
    assert {id.split("/")[1] for id in found} == {"GLU"}
    assert {result.verdict for result in found.values()} == {Verdict.UNSUPPORTED}
    assert {result.detail for result in found.values()} >= {"it refuses GLU of F32 to F32", "it refuses GLU of F32, F32 to F32"}


def byte_before(node: RpcTensor, sources: list[RpcTensor]) -> tuple[int, int]:
    return node.data - 1, node.buffer


def byte_behind(node: RpcTensor, sources: list[RpcTensor]) -> tuple[int, int]:
    return node.data + extent(BY_NUMBER[node.type], node.ne, node.nb), node.buffer


def byte_of_a_source(node: RpcTensor, sources: list[RpcTensor]) -> tuple[int, int]:
    return sources[0].data + 2, sources[0].buffer


def spoils(op: str, where: Callable[[RpcTensor, list[RpcTensor]], tuple[int, int]]) -> Sabotage:
    """Change a bit of the byte at an address of a buffer after each node of an op."""

    class Spoils(ChangesGraphs):
        def then(self, graph: Graph) -> None:
            tensors = {tensor.id: tensor for tensor in graph.message().tensors}
            for node in nodes_of(graph, OP_NUMBERS[op]):
                flip(self, *where(node, [tensors[id] for id in node.src if id]))

    return Sabotage(session=Spoils)


BESIDE = [
    (byte_before, "SOFT_MAX", "-1 bytes from the start of dst"),
    (byte_behind, "SOFT_MAX", "bytes from the start of"),
    (byte_of_a_source, "SUM_ROWS", "+2 bytes from the start of src0"),
]


@pytest.mark.parametrize(("how", "op", "words"), BESIDE, ids=[how.__name__ for how, _, _ in BESIDE])
def test_bytes_beside_the_result_must_not_change(tmp_path: Path, how: Callable[..., tuple[int, int]], op: str, words: str) -> None:
    cases = [case for case in of(op) if "in-place" not in case.id and "empty" not in case.id][:5]
    found = wrong(run(InProcess(tmp_path, spoils(op, how)), cases))
    assert list(found) == [case.id for case in cases]
    for result in found.values():
        assert (result.verdict, result.rule) == (Verdict.FAIL, "data.round-trip")
        assert f"expected {op} of F32" in result.detail
        assert "to change no byte outside of its result's elements; 1 changed, the first " in result.detail
        assert words in result.detail


# ------------------------------------------------------------------------------------------------------ vectors made here


def f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def operand(ne: list[int], nb: list[int], content: bytes | None = None, **more: Any) -> dict[str, Any]:
    described = {"type": "F32", "ne": ne, "nb": nb, "offset": 0} | more
    if content is not None:
        described |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": base64.b64encode(content).decode()}
    return described


GAP = bytes(4 * [0xA5])
GOOD: dict[str, Any] = {
    "id": "made-here",
    "op_params": 64 * "00",
    "dst": operand([2, 2, 1, 1], [4, 12, 24, 24], f32(7, 7) + GAP + f32(7, 7)),
    "src": [operand([2, 2, 1, 1], [4, 8, 16, 16], f32(1, 2, 3, 4)), operand([2, 1, 1, 1], [4, 8, 8, 8], f32(10, 20))],
    "expected": {"dst": f32(11, 22) + bytes(4) + f32(13, 24)},
}
"""ADD of a row to two, into rows 12 bytes apart; the expected bytes of the gaps are not compared."""
IN_PLACE: dict[str, Any] = GOOD | {
    "dst": operand([2, 2, 1, 1], [4, 8, 16, 16], alias="src0"),
    "expected": {"src0": f32(11, 22, 13, 24)},
}
IN_PART: dict[str, Any] = GOOD | {
    "dst": operand([2, 1, 1, 1], [4, 8, 8, 8], alias="src1", offset=8),
    "src": [operand([2, 1, 1, 1], [4, 8, 8, 8], f32(3, 5)), operand([4, 1, 1, 1], [4, 16, 16, 16], f32(1, 2, 3, 4))],
    "expected": {"src1": f32(1, 2, 9, 25)},
}
"""SQR into the second half of a source that it does not read."""


@pytest.mark.parametrize("alignment", [64, 256])
def test_memories_lie_apart_and_aligned(alignment: int) -> None:
    left = base64.b64encode(zlib.compress(f32(11, 22, 0, 13, 24))).decode()
    row = GOOD | {"dst": operand([2, 2, 1, 1], [4, 12, 24, 24]), "expected": {"dst": left}}
    image = play_ops.Image.of(play_ops.Vector(Path("none"), "ADD", row, Tolerance()), alignment)
    assert list(image.starts) == ["dst", "src0", "src1"]
    contents = [b"\xff" * 20, f32(1, 2, 3, 4), f32(10, 20)]
    rest = image.data
    for start, content in reversed(list(zip(image.starts.values(), contents, strict=True))):
        assert start % alignment == 0
        assert rest[start : start + len(content)] == content
        assert set(rest[start + len(content) :]) == set(rest[start - 64 : start]) == {0xA5}
        assert len(rest) >= start + len(content) + 64
        rest = rest[:start]
    assert set(rest) == {0xA5}


SAME_BEFORE = {
    *("ARGMAX/n1", "ARGSORT/falling-n1", "COUNT_EQUAL/empty", "COUNT_EQUAL/none", "CPY/f32-small-to-nvfp4", "DUP/in-place"),
    *("SET_ROWS/no-rows", "TOP_K/n1-k1"),
}
"""Vectors whose result holds before the node what it must hold after it: zeros, for the most part."""


def test_a_server_that_computes_nothing_passes_no_vector() -> None:
    """Where the genuine server left NaN, too: what an element holds before is never what it must become."""
    passed = set()
    for case in every_case():
        (vector,) = case.run.args  # type: ignore[attr-defined]
        if 0 in vector.row["dst"]["ne"] or vector.op in VIEW_OPS:
            continue
        image = play_ops.Image.of(vector, 64)
        with contextlib.suppress(Broken):
            play_ops.judge(vector, image, image.data)
            passed.add(case.id.removeprefix("ops/"))
    assert passed == SAME_BEFORE


EXACT = {"rtol": 0.0, "atol": 0.0, "nmse": 0.0, "reason": "no rounding"}


def judged(path: Path, row: dict[str, Any], tolerance: dict[str, Any] = EXACT, op: str = "ADD") -> Result:
    """Play one case on our server."""
    row = copy.deepcopy(row)
    row["expected"] = {name: base64.b64encode(zlib.compress(data)).decode() for name, data in row["expected"].items()}
    file = path / "add.json"
    file.write_text(json.dumps({"op": op, "tolerance": tolerance, "cases": [row]}))
    (result,) = run(InProcess(path), list(play_ops.cases(file, json.loads(file.read_text())))).results
    return result


def off(row: dict[str, Any], *values: float) -> dict[str, Any]:
    (name,) = row["expected"]
    return row | {"expected": {name: f32(*values)}}


MADE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "good": (GOOD, EXACT, ""),
    "dst may hold anything": (GOOD | {"dst": operand([2, 2, 1, 1], [4, 12, 24, 24])}, EXACT, ""),
    "in place": (IN_PLACE, EXACT, ""),
    "one number off": (off(IN_PLACE, 11, 22, 13, 25), EXACT, "bytes at [1,1,0,0]: 24.0 instead of 25.0; 1 of 4 wrong"),
    "one number near": (off(IN_PLACE, 11, 22, 13, 24.01), EXACT | {"rtol": 1e-3}, ""),
    "one number far": (off(IN_PLACE, 11, 22, 13, 24.03), EXACT | {"rtol": 1e-3}, "value at [1,1,0,0]: 24.0 instead of 24.03"),
    "one number far and all together near": (off(IN_PLACE, 11, 22, 13, 24.03), EXACT | {"rtol": 1e-3, "nmse": 1e-3}, ""),
    "all together near, each near enough": (off(IN_PLACE, 11, 22, 13, 24.03) | {"element": 0.04}, EXACT | {"nmse": 1e-3}, ""),
    "all together near, one not": (
        off(IN_PLACE, 11, 22, 13, 24.03) | {"element": 0.02},
        EXACT | {"nmse": 1e-3},
        "to be within 0.02 of the recorded one; value at [1,1,0,0]: 24.0 instead of 24.03",
    ),
    "NaN expected": (off(IN_PLACE, 11, 22, float("nan"), 24), EXACT | {"rtol": 1.0}, "class at [0,1,0,0]: 13.0 instead of nan"),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE)
def test_results_are_compared_by_the_rule(tmp_path: Path, what: str) -> None:
    row, tolerance, words = MADE[what]
    result = judged(tmp_path, row, tolerance)
    assert (result.verdict, result.rule) == (Verdict.FAIL if words else Verdict.PASS, "graph.computes"), result.detail
    assert words in result.detail


def lets_one_pass(row: dict[str, Any], tolerance: dict[str, Any]) -> bool:
    """Whether the first element of a result may be off by 1."""
    dst = row["dst"]
    data = np.frombuffer(zlib.decompress(base64.b64decode(row["expected"]["dst"])), np.uint8)
    wanted = Tensor(BY_NAME[dst["type"]], tuple(dst["ne"]), tuple(dst["nb"]), PlainStorage(data)).values()
    found = wanted.copy()
    found[0, 0, 0, 0] += 1
    if compare(wanted, found, Tolerance(**tolerance)) is not None:
        return False
    return "element" not in row or bool(abs(found - wanted)[np.isfinite(wanted)].max() <= row["element"])


def test_a_wrong_element_hides_in_few_products() -> None:
    """An element may be off by four times what the genuine server's worst one is off by, and by no more."""
    document = json.loads((UPSTREAM / "ops" / "mul_mat.json").read_text())
    rows = [row for row in document["cases"] if row["dst"]["ne"][0] and row["dst"]["type"] == "F32" and "dst" in row["expected"]]
    rows = [row for row in rows if all(row["dst"]["ne"])]
    tolerances = [row.get("tolerance", document["tolerance"]) for row in rows]
    by_mean = [lets_one_pass({key: row[key] for key in ("dst", "expected")}, t) for row, t in zip(rows, tolerances, strict=True)]
    now = [lets_one_pass(row, t) for row, t in zip(rows, tolerances, strict=True)]
    assert (len(rows), sum(by_mean), sum(now)) == (131, 74, 28)


def test_the_tolerance_of_a_case_comes_before_that_of_the_op(tmp_path: Path) -> None:
    row = off(IN_PLACE, 11, 22, 13, 24.01)
    assert judged(tmp_path, row | {"tolerance": EXACT}, EXACT | {"rtol": 1.0}).verdict is Verdict.FAIL
    assert judged(tmp_path, row | {"tolerance": EXACT | {"rtol": 1.0}}).verdict is Verdict.PASS


def test_a_result_may_be_a_part_of_a_memory(tmp_path: Path) -> None:
    assert judged(tmp_path, IN_PART, op="SQR").verdict is Verdict.PASS
    assert "at [1,0,0,0]: 25.0 instead of 24.0" in judged(tmp_path, off(IN_PART, 1, 2, 9, 24), op="SQR").detail
    elsewhere = IN_PART | {"dst": IN_PART["dst"] | {"offset": 4}}
    assert "at [0,0,0,0]: 9.0 instead of 2.0" in judged(tmp_path, elsewhere, op="SQR").detail


def test_a_node_that_the_op_cannot_mean_is_refused(tmp_path: Path) -> None:
    result = judged(tmp_path, GOOD, op="MUL_MAT")
    assert (result.verdict, result.detail) == (Verdict.UNSUPPORTED, "it refuses MUL_MAT of F32, F32 to F32")


def test_a_damaged_vector_is_not_judged(tmp_path: Path) -> None:
    row = GOOD | {"src": [GOOD["src"][0] | {"sha256": 64 * "0"}, GOOD["src"][1]]}
    result = judged(tmp_path, row)
    assert result.verdict is Verdict.SKIP
    assert result.detail.startswith("the vector is damaged: src0 does not match its sha256; see")


# --------------------------------------------------------------------------------------------------------- the command


def test_the_report_sums_up_each_op(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Errs(RefusesGelus, MultipliesBadly):
        """It lacks GLU, and multiplies badly."""

    cases = [case for case in of("ABS", "MUL_MAT", "GLU", "SUM") if case.id.split("/")[1] != "MUL_MAT" or "f32-k" in case.id]
    target = InProcess(tmp_path, Sabotage(session=Errs))
    status = command.judge_and_report(target, cases, command.JudgingOptions(), (), play_ops.summary)
    *_, first, second, total = capsys.readouterr().out.splitlines()
    assert status == 1
    assert total.startswith("a server in this process, protocol 3.6.1, 2 devices: ")
    number = len(of("GLU"))
    assert first.startswith(f"GLU: 1 of {number} pass, {number - 1} UNSUPPORTED, of these ")
    assert "with types that pass elsewhere (too strict a check?): ops/GLU/" in first
    assert second == "MUL_MAT: 0 of 6 pass, 6 FAIL"
