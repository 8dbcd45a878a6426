"""Reports for other programs, from the JSON of a run: JUnit for CI systems, SARIF for code scanning."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

from ggml_rpc_ref.spec.rules import RULES

Run = Mapping[str, Any]
"""A run as `report.as_json` returns it."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 can't hold."""
SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
"""The schema of the SARIF that is written; its version is in its name."""
BROKEN = ("FAIL", "DESYNC")
"""Verdicts that JUnit calls failures; a crash, a hang and a defect of ours are its errors."""
NOT_JUDGED = ("SKIP", "UNSUPPORTED")


def as_junit(run: Run) -> str:
    """Return JUnit's XML: a suite for each section, `classname` the rule, `name` the case's id."""
    root = ElementTree.Element("testsuites", name=_xml(run["target"]["name"]))
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for case in run["cases"]:
        sections.setdefault(case["rule"].partition(".")[0], []).append(case)
    for section, cases in sections.items():
        verdicts = [case["verdict"] for case in cases]
        numbers = {
            "tests": len(cases),
            "failures": sum(verdict in BROKEN for verdict in verdicts),
            "errors": sum(verdict not in (*BROKEN, *NOT_JUDGED, "PASS") for verdict in verdicts),
            "skipped": sum(verdict in NOT_JUDGED for verdict in verdicts),
        }
        attributes = {name: str(number) for name, number in numbers.items()}
        seconds = sum(case["duration"] for case in cases)
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": section, **attributes, "time": f"{seconds:.3f}", "timestamp": run["started"][:19]}
        )
        for case in cases:
            _add_case(suite, case)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_case(suite: ElementTree.Element, case: Mapping[str, Any]) -> None:
    row = ElementTree.SubElement(suite, "testcase", classname=case["rule"], name=case["id"], time=f"{case['duration']:.3f}")
    verdict, detail = case["verdict"], _xml(case["detail"])
    if verdict in NOT_JUDGED:
        ElementTree.SubElement(row, "skipped", message=f"{verdict}: {detail}")
    elif verdict != "PASS":
        kind = "failure" if verdict in BROKEN else "error"
        found = ElementTree.SubElement(row, kind, type=f"{verdict} {case['level']}", message=detail)
        found.text = _xml("\n".join((case.get("what", ""), *case.get("server_said", ()), *case.get("transcript", ()))))


def _xml(text: str) -> str:
    return _NO_XML.sub("?", text)


def as_sarif(run: Run) -> dict[str, Any]:
    """Return SARIF 2.1.0: a result for each case that found a fault, a rule for each that was broken."""
    faults = [case for case in run["cases"] if case["verdict"] not in (*NOT_JUDGED, "PASS")]
    broken = sorted({case["broken_rule"] for case in faults})
    driver = {
        "name": run["tool"]["name"],
        "version": run["tool"]["version"],
        "rules": [{"id": id, "shortDescription": {"text": RULES[id].sentence}} for id in broken],
    }
    results = [_result(run, case, broken.index(case["broken_rule"])) for case in faults]
    return {
        "$schema": SARIF,
        "version": SARIF.partition("sarif-")[2].removesuffix(".json"),
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _result(run: Run, case: Mapping[str, Any], rule: int) -> dict[str, Any]:
    name = run["target"]["name"]
    return {
        "ruleId": case["broken_rule"],
        "ruleIndex": rule,
        "level": "error" if case["level"] == "MUST" or case["verdict"] in ("CRASH", "HANG") else "warning",
        "message": {"text": f"{case['id']}: {case['verdict']}: {case['detail']}"},
        "locations": [{"logicalLocations": [{"name": case["id"], "fullyQualifiedName": f"{name}/{case['id']}"}]}],
        "partialFingerprints": {"case": case["id"]},
    }
