"""Faults that one case finds and no other: a server with each of them, made from ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggml_rpc_ref.conformance import CASES, NO_FAULT, Options, run
from tests.support.sabotage import InProcess, Sabotage, quiet

BESIDE = (
    "graph.computes/add",
    "buffer.clear/90",
    "data.copy/same-buffer",
    "graph.index/set-rows-count",
    "graph.computes/mul-mat-q8-0",
)
"""Cases that pass whatever is wrong here; all the new cases were run against each of these servers by hand."""


@pytest.mark.parametrize("words", quiet.QUIET)
def test_a_quiet_fault_is_found_by_its_cases_alone(words: str, tmp_path: Path) -> None:
    chosen = [CASES[id] for id in (*BESIDE, *sorted(quiet.CASES[words]))]
    report = run(InProcess(tmp_path, Sabotage(session=quiet.QUIET[words])), chosen, Options(timeout=10.0, profile=""))
    assert {result.case.id for result in report.results if result.verdict not in NO_FAULT} == quiet.CASES[words]


def test_every_fault_has_its_cases() -> None:
    assert len(quiet.QUIET) == 31
    assert all(cases <= set(CASES) and cases for cases in quiet.CASES.values())
